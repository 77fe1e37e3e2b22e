package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// gcm seals with a key, as an owner would with any other program.
func gcm(t *testing.T, key, iv []byte, text string) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return a.Seal(nil, iv, []byte(text), nil)
}

func TestEnvelope(t *testing.T) {
	kek, dek, iv := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 12)
	b64 := base64.StdEncoding.EncodeToString
	good := map[string]any{
		"version": "0.1.0", "type": "envelope", "provider": "kbs", "provider_settings": map[string]any{}, "annotations": map[string]any{},
		"key_id": "kbs:///a/b/c", "encrypted_key": b64(append(bytes.Clone(iv), gcm(t, kek, iv, string(dek))...)),
		"encrypted_data": b64(gcm(t, dek, iv, "the value")), "wrap_type": "A256GCM", "iv": b64(iv),
	}
	open := func(members map[string]any) (secret.Bytes, error) {
		raw, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(raw)
		if err != nil {
			return secret.Bytes{}, err
		}
		wrapped, err := p.Key()
		if err != nil {
			return secret.Bytes{}, err
		}
		key, err := OpenKey(secret.New(bytes.Clone(kek)), wrapped)
		if err != nil {
			return secret.Bytes{}, err
		}
		return p.Envelopment.Open(key)
	}
	value, err := open(good)
	if err != nil || string(value.Reveal()) != "the value" {
		t.Fatalf("%v", err)
	}
	for name, change := range map[string]map[string]any{
		"no key":              {"key_id": ""},
		"no data":             {"encrypted_data": nil},
		"unauthenticated":     {"wrap_type": "A256CTR"},
		"another key":         {"encrypted_key": b64(append(bytes.Clone(iv), gcm(t, dek, iv, string(dek))...))},
		"a key cut short":     {"encrypted_key": b64(iv[:11])},
		"a key of 16 bytes":   {"encrypted_key": b64(append(bytes.Clone(iv), gcm(t, kek, iv, "sixteen bytes is")...))},
		"a key in base64url":  {"encrypted_key": "__--"},
		"another iv":          {"iv": b64(bytes.Repeat([]byte{4}, 12))},
		"an iv of 16 bytes":   {"iv": b64(bytes.Repeat([]byte{3}, 16))},
		"data that is no tag": {"encrypted_data": b64([]byte("short"))},
		"data changed":        {"encrypted_data": b64(gcm(t, dek, bytes.Repeat([]byte{5}, 12), "the value"))},
	} {
		bad := maps.Clone(good)
		maps.Copy(bad, change)
		if _, err := open(bad); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
