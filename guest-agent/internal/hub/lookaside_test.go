package hub

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// lookaside serves one signature file.
type lookaside struct {
	mu   sync.Mutex
	path string
	file []byte
}

func (l *lookaside) set(path string, file []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path, l.file = path, file
}

func (l *lookaside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path != l.path {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(l.file)
}

// An image that is signed as skopeo and podman do it: the policy, the keyring
// and where the signatures lie come from the broker.
func TestImageSignedWithGPG(t *testing.T) {
	aside := new(lookaside)
	srv := httptest.NewServer(aside)
	t.Cleanup(srv.Close)
	w := newWorld(t, func(c *Config) {
		c.LookasideURI = "kbs:///default/sigstore-config/test"
		c.Registry.InsecureHTTPHosts = append(c.Registry.InsecureHTTPHosts, strings.TrimPrefix(srv.URL, "http://"))
	})
	key, err := openpgp.NewEntity("release", "", "release@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var ring bytes.Buffer
	if err := key.Serialize(&ring); err != nil {
		t.Fatal(err)
	}
	w.broker.put("default/gpg/release", ring.Bytes())
	w.broker.put(policyPath, []byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"kbs:///default/gpg/release"}],"transports":{}}`))
	refused := func(why string, code fault.Code) {
		t.Helper()
		if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); fault.CodeOf(err) != code {
			t.Fatalf("%s: got %v, want %s", why, err, code)
		}
	}
	w.broker.put("default/sigstore-config/test", []byte("elsewhere: x"))
	refused("registries.d cannot be read", fault.PolicyError)
	w.broker.put("default/sigstore-config/test", fmt.Appendf(nil, "default-docker:\n  lookaside: %s/s\n", srv.URL))
	refused("nothing was signed", fault.ImageUnsigned)

	path := "/s/shop/app@" + strings.Replace(w.digest, ":", "=", 1) + "/signature-1"
	aside.set(path, gpgSigned(t, key, w.registry.host+"/shop/other:1", w.digest))
	refused("another name was signed", fault.ImageUnsigned)
	aside.set(path, gpgSigned(t, key, w.ref, w.digest))
	if _, err := w.hub.PullImage(t.Context(), w.ref, w.bundle()); err != nil {
		t.Fatalf("pull: %v\n%s", err, w.journalText())
	}
}

// A lookaside server is reached as a registry is: through the proxy, by the CA
// and with the client certificate of its host, and without the registry's password.
func TestPrivateLookaside(t *testing.T) {
	p := newPrivate(t)
	aside := new(lookaside)
	p.aside = aside
	const locations = "kbs:///default/sigstore-config/test"
	key, err := openpgp.NewEntity("release", "", "release@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	var ring bytes.Buffer
	if err := key.Serialize(&ring); err != nil {
		t.Fatal(err)
	}
	pull := func(t *testing.T, change func(*Config)) error {
		w := newWorld(t, func(c *Config) { // the registry itself is open to all
			c.LookasideURI = locations
			c.Registry.Proxy.HTTPS = p.proxy.URL
			c.Registry.TLS = map[string]registry.HostTLS{privateHost: {RootCAs: p.roots}}
			c.Certificates = map[string]string{privateHost: "kbs:///" + certificatePath}
			if change != nil {
				change(c)
			}
		})
		w.broker.put(certificatePath, p.client)
		w.broker.put("default/gpg/release", ring.Bytes())
		w.broker.put(policyPath, []byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"kbs:///default/gpg/release"}],"transports":{}}`))
		w.broker.put("default/sigstore-config/test", fmt.Appendf(nil, "default-docker:\n  lookaside: https://%s/sigs\n", privateHost))
		aside.set("/sigs/shop/app@"+strings.Replace(w.digest, ":", "=", 1)+"/signature-1", gpgSigned(t, key, w.ref, w.digest))
		return w.pull()
	}
	if err := pull(t, nil); err != nil || p.tunnels.Load() == 0 {
		t.Fatalf("%v, %d connections through the proxy", err, p.tunnels.Load())
	}
	for name, spoil := range map[string]func(*Config){
		"client certificate": func(c *Config) { c.Certificates = nil },
		"proxy":              func(c *Config) { c.Registry.Proxy = registry.Proxy{} },
		"roots":              func(c *Config) { c.Registry.TLS = nil },
	} {
		t.Run("without "+name, func(t *testing.T) {
			if err := pull(t, spoil); fault.CodeOf(err) != fault.ImageUnavailable {
				t.Errorf("got %v", err)
			}
		})
	}
}

func gpgSigned(t *testing.T, key *openpgp.Entity, name, digest string) []byte {
	t.Helper()
	var message bytes.Buffer
	sign, err := openpgp.Sign(&message, key, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(sign, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"atomic container signature"},"optional":{}}`, name, digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := sign.Close(); err != nil {
		t.Fatal(err)
	}
	return message.Bytes()
}
