package crypt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestPublicOptions(t *testing.T) {
	mac := randomBytes(32)
	raw, err := Public{HMAC: mac}.Marshal()
	must(t, err)
	if want := fmt.Sprintf(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":%q,"cipheroptions":{}}`, b64(mac)); string(raw) != want {
		t.Fatalf("got %s, want %s", raw, want)
	}
	p, err := ParsePublic(raw)
	must(t, err)
	if !bytes.Equal(p.HMAC, mac) || p.Nonce != nil {
		t.Fatalf("%+v", p)
	}
	for name, doc := range map[string]string{
		"other cipher": fmt.Sprintf(`{"cipher":"NONE","hmac":%q}`, b64(mac)),
		"no cipher":    fmt.Sprintf(`{"hmac":%q}`, b64(mac)),
		"no HMAC":      `{"cipher":"AES_256_CTR_HMAC_SHA256"}`,
		"empty HMAC":   `{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":""}`,
		"short HMAC":   fmt.Sprintf(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":%q}`, b64(mac[1:])),
		"short nonce":  fmt.Sprintf(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":%q,"cipheroptions":{"nonce":"AAAA"}}`, b64(mac)),
		"two HMACs":    fmt.Sprintf(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":%q,"hmac":%q}`, b64(mac), b64(mac)),
		"trailing":     string(raw) + "{}",
		"not JSON":     "x",
	} {
		if _, err := ParsePublic([]byte(doc)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestPrivateOptions(t *testing.T) {
	_, _, priv := encrypt(t, []byte("plain"))
	doc, err := priv.Marshal()
	must(t, err)
	got, err := ParsePrivate(doc)
	must(t, err)
	if !got.Key.Equal(priv.Key) || !bytes.Equal(got.Nonce, priv.Nonce) || got.Digest != priv.Digest || got.ID() != priv.ID() {
		t.Fatal("the options changed on their way")
	}
	key := b64(randomBytes(32))
	for name, bad := range map[string]string{
		"no key":      `{"cipheroptions":{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}}`,
		"short key":   fmt.Sprintf(`{"symkey":%q}`, key[:24]),
		"short nonce": fmt.Sprintf(`{"symkey":%q,"cipheroptions":{"nonce":"AAAA"}}`, key),
		"trailing":    fmt.Sprintf(`{"symkey":%q}x`, key),
		"wrong type":  fmt.Sprintf(`{"symkey":%q,"digest":{}}`, key),
	} {
		_, err := ParsePrivate(secret.Copy([]byte(bad)))
		if err == nil {
			t.Errorf("%s was accepted", name)
		} else if strings.Contains(err.Error(), key[:8]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
	// A nonce may be missing here if the public options have one; without any
	// the decrypter refuses (TestWrongLengths).
	if _, err := ParsePrivate(secret.Copy(fmt.Appendf(nil, `{"symkey":%q}`, key))); err != nil {
		t.Error(err)
	}
}

func TestAnnotations(t *testing.T) {
	_, pub, _ := encrypt(t, []byte("plain"))
	keys := []WrappedKey{
		{SchemeProvider, []byte("one")}, {SchemeProvider, []byte("two")}, {"provider.bb", []byte("b")}, {"provider.zz", []byte("z")},
		{SchemeJWE, []byte("{}")}, {SchemePKCS7, []byte("0")}, {"unheard-of", []byte("?")},
	}
	shuffled := []WrappedKey{keys[5], keys[0], keys[3], keys[1], keys[6], keys[2], keys[4]}
	a, err := Annotations(pub, shuffled...)
	must(t, err)
	if len(a) != 7 || a[AnnotationPackets] != "b25l,dHdv" {
		t.Errorf("annotations %v", a)
	}
	got, read, err := ParseAnnotations(a)
	if err != nil || !bytes.Equal(got.HMAC, pub.HMAC) || !reflect.DeepEqual(read, keys) {
		t.Fatalf("%q, %v", read, err)
	}
	a["kept"] = "yes"
	if bare := WithoutKeys(a); len(bare) != 2 || bare["kept"] != "yes" || a[AnnotationPackets] == "" {
		t.Errorf("without keys: %v", bare)
	}
	// The keys may travel elsewhere.
	if _, read, err = ParseAnnotations(map[string]string{AnnotationPublic: a[AnnotationPublic]}); err != nil || len(read) != 0 {
		t.Errorf("no packet: %q, %v", read, err)
	}
	pubText := a[AnnotationPublic]
	for name, bad := range map[string]map[string]string{
		"nothing":            {},
		"no public options":  {AnnotationPackets: "AAAA"},
		"empty packet":       {AnnotationPublic: pubText, AnnotationPackets: "AAAA,,AAAA", annotationPrefix + "jwe": "AAAA=A"},
		"too many in all":    {AnnotationPublic: pubText, AnnotationPackets: strings.Repeat("AAAA,", 15) + "AAAA", annotationPrefix + "jwe": "AAAA"},
		"oversized packet":   {AnnotationPublic: pubText, AnnotationPackets: strings.Repeat("AAAA", maxOptions)},
		"packet not base64":  {AnnotationPublic: pubText, AnnotationPackets: "AAAA,!"},
		"a line feed in it":  {AnnotationPublic: pubText, AnnotationPackets: "AA\nAA"},
		"options not base64": {AnnotationPublic: "!", AnnotationPackets: "AAAA"},
		"too many packets":   {AnnotationPublic: pubText, AnnotationPackets: strings.Repeat("AAAA,", 20) + "AAAA"},
	} {
		if _, _, err := ParseAnnotations(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := Annotations(pub); err == nil {
		t.Error("annotations without a packet")
	}
}

func FuzzParseAnnotations(f *testing.F) {
	_, pub, _ := encrypt(f, []byte("x"))
	a, err := Annotations(pub, WrappedKey{SchemeProvider, []byte("p")})
	must(f, err)
	f.Add(a[AnnotationPublic], a[AnnotationPackets])
	f.Fuzz(func(t *testing.T, options, packets string) {
		p, list, err := ParseAnnotations(map[string]string{AnnotationPublic: options, AnnotationPackets: packets})
		if err != nil {
			return
		}
		if len(p.HMAC) != macSize || (p.Nonce != nil && len(p.Nonce) != nonceSize) {
			t.Fatalf("accepted %+v", p)
		}
		if again, err := KeyAnnotations(list...); err != nil || again[AnnotationPackets] != packets {
			t.Fatalf("%q is read as %q, %v", packets, again, err)
		}
	})
}

func FuzzParsePublic(f *testing.F) {
	raw, err := Public{HMAC: randomBytes(32), Nonce: randomBytes(16)}.Marshal()
	must(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePublic(raw)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		must(t, err)
		q, err := ParsePublic(again)
		if err != nil || !bytes.Equal(q.HMAC, p.HMAC) || !bytes.Equal(q.Nonce, p.Nonce) {
			t.Fatalf("%s means %s", raw, again)
		}
	})
}

func FuzzParsePrivate(f *testing.F) {
	_, _, priv := encrypt(f, []byte("x"))
	doc, err := priv.Marshal()
	must(f, err)
	f.Add(doc.Reveal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePrivate(secret.Copy(raw))
		if err != nil {
			return
		}
		if p.Key.Len() != keySize || !json.Valid(raw) {
			t.Fatal("accepted what is not whole")
		}
	})
}
