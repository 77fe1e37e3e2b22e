package hub

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
)

const (
	sealedName = "kbs:///default/secret/1"
	sealingKID = "kbs:///default/signing/1"
)

// sealing is an owner who seals.
type sealing struct {
	t   *testing.T
	key *ecdsa.PrivateKey
}

func newSealing(t *testing.T) sealing {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sealing{t, k}
}

func (s sealing) seal(provider, name, kid string) string {
	s.t.Helper()
	text, err := sealed.Seal(provider, name, kid, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s sealing) jwk(kid string) []byte {
	s.t.Helper()
	raw, err := sealed.PublicJWK(&s.key.PublicKey, kid)
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

// However many secrets a pod has sealed, it attests once.
func TestUnseal(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(c *Config) { c.Sealed.KeyDir = dir })
	owner := newSealing(t)
	w.broker.put("default/secret/1", []byte("the value"))
	w.broker.put("default/signing/1", owner.jwk(sealingKID))
	if err := os.WriteFile(filepath.Join(dir, "local"), owner.jwk("local"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		kid := sealingKID
		if i%2 == 1 {
			kid = "local"
		}
		value, err := w.hub.Unseal(t.Context(), owner.seal("KBS", sealedName, kid))
		if err != nil {
			t.Fatal(err)
		}
		if string(value.Reveal()) != "the value" {
			t.Errorf("unsealed %q", value.Reveal())
		}
		value.Destroy()
	}
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	if w.broker.handshakes != 1 {
		t.Errorf("%d attestations for fifty secrets", w.broker.handshakes)
	}
}

func TestUnsealRefuses(t *testing.T) {
	w := newWorld(t, nil)
	owner, other := newSealing(t), newSealing(t)
	w.broker.put("default/secret/1", []byte("the value"))
	w.broker.put("default/signing/1", owner.jwk(sealingKID))
	unsigned := fmt.Sprintf("sealed.x.%s.y", base64.RawURLEncoding.EncodeToString(
		fmt.Appendf(nil, `{"version":"0.1.0","type":"vault","name":%q,"provider":"kbs","provider_settings":{},"annotations":{}}`, sealedName)))
	for name, c := range map[string]struct {
		text string
		code fault.Code
	}{
		"signed by another":      {other.seal("kbs", sealedName, sealingKID), fault.SealedInvalid},
		"not signed":             {unsigned, fault.SealedInvalid},
		"a key that is a file":   {owner.seal("kbs", sealedName, "../../etc/passwd"), fault.SealedInvalid},
		"an absent key":          {owner.seal("kbs", sealedName, "kbs:///default/signing/2"), fault.NotFound},
		"an absent secret":       {owner.seal("kbs", "kbs:///default/secret/2", sealingKID), fault.NotFound},
		"another provider":       {owner.seal("ehsm", "x", sealingKID), fault.Unsupported},
		"no settings":            {owner.seal("aws", "arn", sealingKID), fault.SealedInvalid},
		"no resource":            {owner.seal("kbs", "https://elsewhere/x", sealingKID), fault.InvalidRequest},
		"a key for an image":     {owner.seal("kbs", sealedName+"?image=sha256:00", sealingKID), fault.InvalidRequest},
		"what is nothing at all": {"sealed.", fault.SealedInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.hub.Unseal(t.Context(), c.text)
			f, ok := err.(*fault.Fault) //nolint:errorlint // what comes out of the hub is a fault itself
			if !ok || f.Code != c.code || f.Ticket == "" {
				t.Fatalf("%v, want %s with a ticket", err, c.code)
			}
			if strings.Contains(f.Public(), "secret/") {
				t.Errorf("the host is told %q", f.Public())
			}
		})
	}
}

func TestUnsignedSecretsNeedAWaiver(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Sealed.UnsafeUnsigned = true })
	w.broker.put("default/secret/1", []byte("the value"))
	value, err := w.hub.Unseal(t.Context(), newSealing(t).seal("kbs", sealedName, "nobody"))
	if err != nil || string(value.Reveal()) != "the value" {
		t.Errorf("%v", err)
	}
}

// An envelope carries its value; the broker has the key that opens its key.
func TestUnsealEnvelope(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Sealed.UnsafeUnsigned = true })
	kek, dek, iv := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 12)
	lock := func(key []byte, text string) []byte {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		return gcm.Seal(nil, iv, []byte(text), nil)
	}
	envelope := func(provider, kid string) string {
		payload := fmt.Appendf(nil, `{"version":"0.1.0","type":"envelope","provider":%q,"key_id":%q,"encrypted_key":%q,"encrypted_data":%q,"wrap_type":"A256GCM","iv":%q,"provider_settings":{},"annotations":{}}`,
			provider, kid, base64.StdEncoding.EncodeToString(append(bytes.Clone(iv), lock(kek, string(dek))...)),
			base64.StdEncoding.EncodeToString(lock(dek, "in the envelope")), base64.StdEncoding.EncodeToString(iv))
		return "sealed.x." + base64.RawURLEncoding.EncodeToString(payload) + ".y"
	}
	w.broker.put("default/kek/1", kek)
	w.broker.put("default/kek/2", dek)
	value, err := w.hub.Unseal(t.Context(), envelope("kbs", "kbs:///default/kek/1"))
	if err != nil || string(value.Reveal()) != "in the envelope" {
		t.Fatalf("%v", err)
	}
	for text, code := range map[string]fault.Code{
		envelope("kbs", "kbs:///default/kek/2"):    fault.SealedInvalid,
		envelope("kbs", "kbs:///default/kek/none"): fault.NotFound,
		envelope("aws", "arn:aws:kms:x"):           fault.Unsupported,
	} {
		if _, err := w.hub.Unseal(t.Context(), text); fault.CodeOf(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
}
