package hub

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// Where the broker keeps what a guest needs to reach a private registry.
const (
	registriesPath  = "default/registries/main"
	authPath        = "default/credential/main"
	certificatePath = "default/client/main"
	privateHost     = "reg.test" // resolves nowhere: only the proxy knows it
)

// private is a registry that lets few in: its certificate is that of a CA of its
// own, it asks for a client certificate and for a password, and it is reached
// through a proxy.
type private struct {
	registry *httptest.Server
	proxy    *httptest.Server
	roots    *x509.CertPool
	client   []byte // PEM, chain and key
	inner    http.Handler
	tunnels  atomic.Int64

	mu       sync.Mutex
	password string
	aside    http.Handler // open below /sigs/, for those who show a certificate
}

func newPrivate(t *testing.T) *private {
	p := &private{roots: x509.NewCertPool(), password: rand40()}
	shown := x509.NewCertPool()
	p.client = selfSigned(t, "client")
	shown.AppendCertsFromPEM(p.client)
	server := selfSigned(t, privateHost)
	p.roots.AppendCertsFromPEM(server)
	pair, err := tls.X509KeyPair(server, server)
	if err != nil {
		t.Fatal(err)
	}
	p.registry = httptest.NewUnstartedServer(http.HandlerFunc(p.guard))
	p.registry.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: shown}
	p.registry.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	p.registry.StartTLS()
	t.Cleanup(p.registry.Close)
	p.proxy = httptest.NewServer(http.HandlerFunc(p.tunnel))
	t.Cleanup(p.proxy.Close)
	return p
}

func (p *private) guard(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	want, aside := p.password, p.aside
	p.mu.Unlock()
	if aside != nil && strings.HasPrefix(r.URL.Path, "/sigs/") && r.Header.Get("Authorization") == "" {
		aside.ServeHTTP(w, r)
		return
	}
	if _, got, _ := r.BasicAuth(); got != want {
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	p.inner.ServeHTTP(w, r)
}

// tunnel answers CONNECT for the one host that it knows.
func (p *private) tunnel(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Host != privateHost+":443" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	out, err := net.Dial("tcp", p.registry.Listener.Addr().String())
	if err != nil {
		http.Error(w, "no", http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = out.Close()
		return
	}
	p.tunnels.Add(1)
	var both sync.WaitGroup
	for _, way := range []struct {
		to   net.Conn
		from io.Reader
	}{{out, buffered}, {in, out}} {
		both.Go(func() {
			_, _ = io.Copy(way.to, way.from)
			_ = way.to.Close()
		})
	}
	both.Wait()
}

func (p *private) setPassword(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.password = s
}

// authFile is auth.json as docker writes it.
func (p *private) authFile() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, privateHost, base64.StdEncoding.EncodeToString([]byte("guest:"+p.password)))
}

// selfSigned returns PEM of a certificate and its key.
func selfSigned(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
}

// newPrivateWorld is a world whose image is to be had from p alone, under the
// name that it always had.
func newPrivateWorld(t *testing.T, p *private, change func(*Config)) *world {
	w := newWorld(t, func(cfg *Config) {
		cfg.Registry = registry.Config{
			Proxy: registry.Proxy{HTTPS: p.proxy.URL},
			TLS:   map[string]registry.HostTLS{privateHost: {RootCAs: p.roots}},
			Retry: registry.Retry{Attempts: 1},
		}
		cfg.RegistriesURI = "kbs:///" + registriesPath
		cfg.AuthURI = "kbs:///" + authPath
		cfg.Certificates = map[string]string{privateHost: "kbs:///" + certificatePath}
		if change != nil {
			change(cfg)
		}
	})
	p.inner = w.registry.handler
	w.broker.put(registriesPath, fmt.Appendf(nil, "[[registry]]\nprefix = %q\nlocation = %q\n", w.registry.host, privateHost))
	w.broker.put(authPath, p.authFile())
	w.broker.put(certificatePath, p.client)
	return w
}

func (w *world) pull() error {
	bundle := w.bundle()
	_, err := w.hub.PullImage(w.t.Context(), w.ref, bundle)
	if err != nil {
		assertNothingMounted(w.t, bundle)
		return err
	}
	return w.hub.ReleaseImage(w.t.Context(), bundle)
}

// Everything that a private registry wants comes from the broker, and the image
// is judged by the name that was asked for. Each piece alone is needed.
func TestPrivateRegistry(t *testing.T) {
	p := newPrivate(t)
	w := newPrivateWorld(t, p, nil)
	if err := w.pull(); err != nil {
		t.Fatalf("%v\n%s", err, w.journalText())
	}
	if p.tunnels.Load() == 0 {
		t.Error("the proxy was not asked")
	}
	for _, secret := range []string{p.password, string(p.client)} {
		if strings.Contains(w.log.String(), secret) {
			t.Error("the log shows a credential")
		}
	}
	for name, spoil := range map[string]func(*Config, *testBroker){
		"registries.conf":    func(c *Config, _ *testBroker) { c.RegistriesURI = "" },
		"password":           func(c *Config, _ *testBroker) { c.AuthURI = "" },
		"client certificate": func(c *Config, _ *testBroker) { c.Certificates = nil },
		"proxy":              func(c *Config, _ *testBroker) { c.Registry.Proxy = registry.Proxy{} },
		"roots":              func(c *Config, _ *testBroker) { c.Registry.TLS = nil },
	} {
		t.Run("without "+name, func(t *testing.T) {
			w := newPrivateWorld(t, p, func(c *Config) { spoil(c, nil) })
			f, ok := errors.AsType[*fault.Fault](w.pull())
			if !ok || f.Code != fault.ImageUnavailable {
				t.Errorf("got %v, want image_unavailable", f)
			}
		})
	}
}

// What is changed at the broker counts for the next pull: a credential that was
// exchanged, and a registry that is blocked from now on.
func TestRegistryConfigurationIsFresh(t *testing.T) {
	p := newPrivate(t)
	w := newPrivateWorld(t, p, nil)
	if err := w.pull(); err != nil {
		t.Fatal(err)
	}
	before := p.tunnels.Load()
	if err := w.pull(); err != nil {
		t.Fatal(err)
	}
	if p.tunnels.Load() != before {
		t.Error("nothing had changed, and the connection was made anew")
	}
	p.setPassword(rand40())
	if err := w.pull(); err == nil {
		t.Error("the old password still opens the registry")
	}
	w.broker.put(authPath, p.authFile())
	if err := w.pull(); err != nil {
		t.Errorf("with the new password: %v", err)
	}
	w.broker.put(registriesPath, fmt.Appendf(nil, "[[registry]]\nprefix = %q\nblocked = true\n", w.registry.host))
	if err := w.pull(); fault.CodeOf(err) != fault.ImageBlocked {
		t.Errorf("a blocked registry: %v", err)
	}
}

// A configuration that cannot be had or read refuses: it may have blocked.
func TestRegistryConfigurationRefuses(t *testing.T) {
	p := newPrivate(t)
	w := newPrivateWorld(t, p, nil)
	for name, c := range map[string]struct {
		path  string
		value []byte
		want  fault.Code
	}{
		"registries.conf":    {registriesPath, []byte("[[registry]]\nprefix='r.io'\nforbidden=true"), fault.PolicyError},
		"no auth.json":       {authPath, []byte("not JSON at all: hunter2"), fault.ImageUnavailable},
		"too long":           {authPath, bytes.Repeat([]byte{' '}, maxAuth+1), fault.ImageUnavailable},
		"client certificate": {certificatePath, []byte("hunter2"), fault.ImageUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			good := map[string][]byte{authPath: p.authFile(), certificatePath: p.client, registriesPath: fmt.Appendf(nil, "[[registry]]\nprefix = %q\nlocation = %q\n", w.registry.host, privateHost)}
			w.broker.put(c.path, c.value)
			f, ok := errors.AsType[*fault.Fault](w.pull())
			if !ok || f.Code != c.want {
				t.Errorf("got %v, want %s", f, c.want)
			}
			if strings.Contains(w.journalText(), "hunter2") {
				t.Error("the journal shows what was meant to be secret")
			}
			w.broker.put(c.path, good[c.path])
		})
	}
	w.broker.deny(authPath, "7QK2-M9TD")
	f, ok := errors.AsType[*fault.Fault](w.pull())
	if !ok || f.Code != fault.PolicyDenied || f.Ticket != "7QK2-M9TD" {
		t.Errorf("got %v, want the broker's refusal", f)
	}
}

// A mirror that is away, or has it not, costs nothing but the question.
func TestMirrorInTheGuest(t *testing.T) {
	mirror := newTestRegistry(t)
	gone := newTestRegistry(t)
	w := newWorld(t, func(c *Config) {
		c.RegistriesURI, c.Registry = "kbs:///"+registriesPath, registry.Config{Retry: registry.Retry{Attempts: 1}}
	})
	var asked atomic.Int64
	counted := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.registry.handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(counted.Close)
	w.broker.put(registriesPath, fmt.Appendf(nil, `[[registry]]
prefix = %q
location = %q
insecure = true
mirror = [{location = %q, insecure = true}, {location = %q, insecure = true}]
`, w.registry.host, strings.TrimPrefix(counted.URL, "http://"), gone.host+"/copies", mirror.host))
	if err := w.pull(); err != nil {
		t.Fatal(err)
	}
	if asked.Load() == 0 {
		t.Error("nothing came from the registry behind the mirrors")
	}
}
