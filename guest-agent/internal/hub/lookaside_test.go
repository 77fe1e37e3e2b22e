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
