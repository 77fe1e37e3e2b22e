package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// authority makes certificates of one root.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = template
	a.pem, a.cert = a.sign(template, &key.PublicKey)
	return a
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PublicKey) ([]byte, *x509.Certificate) {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert
}

// issue makes a certificate for one use, valid around now plus shift.
func (a *authority) issue(use x509.ExtKeyUsage, shift time.Duration) (cert, key []byte) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, _ = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(shift - time.Minute),
		NotAfter: time.Now().Add(shift + time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, &private.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// client is what a runtime with a certificate of a speaks with.
func (a *authority) client(servers *authority, use x509.ExtKeyUsage, shift time.Duration) *tls.Config {
	a.t.Helper()
	cert, key := a.issue(use, shift)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(servers.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// echoes serves a known listener that sends back what it gets.
func echoes(t *testing.T, s settings.ListenTLS) (address string) {
	t.Helper()
	config, err := listenTLS(Options{}, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return echoesWith(t, config)
}

func echoesWith(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	known := listenKnown(l, config, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := known.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	t.Cleanup(func() {
		if err := known.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return l.Addr().String()
}

// say sends a word and expects it back.
func say(ctx context.Context, address string, config *tls.Config) error {
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	buf := make([]byte, 5)
	_, err = io.ReadFull(conn, buf) // in TLS 1.3 a refusal of the client comes here
	return err
}

func TestBothSidesAreVerified(t *testing.T) {
	servers, runtimes, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	cert, key := servers.issue(x509.ExtKeyUsageServerAuth, 0)
	address := echoes(t, settings.ListenTLS{Certificate: cert, Key: secret.New(key), ClientCA: runtimes.pem})
	good := runtimes.client(servers, x509.ExtKeyUsageClientAuth, 0)
	old := runtimes.client(servers, x509.ExtKeyUsageClientAuth, 0)
	old.MaxVersion = tls.VersionTLS12
	nobody := runtimes.client(servers, x509.ExtKeyUsageClientAuth, 0)
	nobody.Certificates = nil
	// Somebody who says nothing delays nobody.
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for name, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"a runtime":                     {good, true},
		"no certificate":                {nobody, false},
		"a stranger's certificate":      {strangers.client(servers, x509.ExtKeyUsageClientAuth, 0), false},
		"one of the servers' authority": {servers.client(servers, x509.ExtKeyUsageClientAuth, 0), false},
		"a server's certificate":        {runtimes.client(servers, x509.ExtKeyUsageServerAuth, 0), false},
		"one that is over":              {runtimes.client(servers, x509.ExtKeyUsageClientAuth, -time.Hour), false},
		"an older TLS":                  {old, false},
		"who trusts another agent":      {runtimes.client(strangers, x509.ExtKeyUsageClientAuth, 0), false},
	} {
		if err := say(t.Context(), address, c.config); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if _, err := plain.Write([]byte("\x00\x00\x00\x05hello in the clear")); err != nil {
		t.Fatal(err)
	}
	if raw, _ := io.ReadAll(plain); strings.Contains(string(raw), "hello") {
		t.Error("the agent spoke in the clear")
	}
}

// TCP without a certificate on either side is refused, whoever leaves it out.
func TestListenTLSRefuses(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(x509.ExtKeyUsageServerAuth, 0)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	files := Options{TLSCert: write("cert", cert), TLSKey: write("key", key), TLSClientCA: write("ca", a.pem)}
	if _, err := listenTLS(files, settings.ListenTLS{}, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("files: %v", err)
	}
	brought := settings.ListenTLS{Certificate: cert, Key: secret.New(key), ClientCA: a.pem}
	noCA, noKey, absent, empty := files, files, files, files
	noCA.TLSClientCA, noKey.TLSKey, absent.TLSCert, empty.TLSClientCA = "", "", filepath.Join(dir, "absent"), write("empty", []byte("nothing"))
	for name, c := range map[string]struct {
		o Options
		s settings.ListenTLS
	}{
		"nothing":         {},
		"no CA":           {o: noCA},
		"no key":          {o: noKey},
		"an absent file":  {o: absent},
		"an empty CA":     {o: empty},
		"both":            {o: files, s: brought},
		"another's key":   {s: settings.ListenTLS{Certificate: a.pem, Key: secret.New(key), ClientCA: a.pem}},
		"a CA of nothing": {s: settings.ListenTLS{Certificate: cert, Key: secret.New(key), ClientCA: []byte("x")}},
	} {
		if config, err := listenTLS(c.o, c.s, slog.New(slog.DiscardHandler)); err == nil || config != nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
