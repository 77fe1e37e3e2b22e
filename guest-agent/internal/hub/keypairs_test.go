package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

const pairPath = "default/image-key/app"

// newPair returns a private key as PEM and the recipient that it opens for.
func newPair(t *testing.T) ([]byte, crypt.Recipient) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r, err := crypt.NewRecipient(crypt.SchemeJWE, public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), r
}

// An image that is encrypted for a key pair, as any tool of the field can, is
// opened with a private key that the broker releases.
func TestImageForAKeyPair(t *testing.T) {
	private, recipient := newPair(t)
	other, _ := newPair(t)
	w := newWorld(t, func(c *Config) { c.ImageKeys = []string{"kbs:///" + pairPath} })
	_, err := ship.Encrypt(t.Context(), w.registry.host+"/shop/plain:1", w.ref, ship.EncryptOptions{Recipients: []crypt.Recipient{recipient}, Registry: w.registry.config()})
	if err != nil {
		t.Fatal(err)
	}
	w.broker.put(signerPath, w.sign(w.ref))
	refused := func(what string, code fault.Code) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Fault](w.pull()); !ok || f.Code != code {
			t.Errorf("%s: %v, want %s", what, f, code)
		}
	}
	refused("a key that the broker does not have", fault.NotFound)
	for what, value := range map[string][]byte{"another key": other, "no key": []byte("x")} {
		w.broker.put(pairPath, value)
		refused(what, fault.ImageKey)
	}
	w.broker.put(pairPath, private)
	if err := w.pull(); err != nil {
		t.Fatalf("%v\n%s", err, w.journalText())
	}
}

func TestImageForAKeyPairWithoutKeys(t *testing.T) {
	_, recipient := newPair(t)
	w := newWorld(t, nil)
	if _, err := ship.Encrypt(t.Context(), w.registry.host+"/shop/plain:1", w.ref, ship.EncryptOptions{Recipients: []crypt.Recipient{recipient}, Registry: w.registry.config()}); err != nil {
		t.Fatal(err)
	}
	w.broker.put(signerPath, w.sign(w.ref))
	if f, ok := errors.AsType[*fault.Fault](w.pull()); !ok || f.Code != fault.ImageKey {
		t.Errorf("got %v, want %s", f, fault.ImageKey)
	}
}
