package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// private VAR DIR starts a registry that lets few in and sets VAR to its host
// and port. DIR gets what is needed: certs/HOST:PORT with its CA and a client
// certificate, and auth.json.
func cmdPrivate(ts *testscript.TestScript, _ bool, args []string) {
	certPEM, keyPEM, err := selfSigned()
	ts.Check(err)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	ts.Check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	password := hush()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	ts.Defer(s.Close)
	host := strings.TrimPrefix(s.URL, "https://")
	dir := filepath.Join(ts.MkAbs(args[1]), "certs", host)
	ts.Check(os.MkdirAll(dir, 0o755))
	for file, b := range map[string][]byte{
		"ca.crt": certPEM, "me.cert": certPEM, "me.key": keyPEM,
		"../../auth.json": fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:"+password))),
	} {
		ts.Check(os.WriteFile(filepath.Join(dir, file), b, 0o600))
	}
	ts.Setenv(args[0], host)
}

// faulty VAR STATUS starts a registry that answers everything with that status, and
// sets VAR to its host and port. With 401 it is its token server that does.
func cmdFaulty(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status == http.StatusUnauthorized && r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
		}
		w.Header().Set("Retry-After", "3600") // more than anybody waits
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "<html>\n<body>\n"+strings.Repeat("<p>no\n", 1000))
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}

// torn VAR starts a registry that writes nothing under the tag torn, and sets VAR to
// its host and port.
func cmdTorn(ts *testscript.TestScript, _ bool, args []string) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/torn") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}

// selfSigned returns a certificate for loopback and its key, in PEM.
func selfSigned() (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// multi REF ARCH... pushes an index with an image for each architecture.
func cmdMulti(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	index := v1.ImageIndex(empty.Index)
	for _, arch := range args[1:] {
		image, err := random.Image(500, 1)
		ts.Check(err)
		config, err := image.ConfigFile()
		ts.Check(err)
		config.OS, config.Architecture = "linux", arch
		image, err = mutate.ConfigFile(image, config)
		ts.Check(err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ts.Check(remote.WriteIndex(ref, index))
}

// mkconf FILE PREFIX HOST writes a registries.conf by which PREFIX lies at HOST,
// without TLS.
func cmdMkConf(ts *testscript.TestScript, _ bool, args []string) {
	text := fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", args[1], args[2])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
