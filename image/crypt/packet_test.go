package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const kid = "kbs:///default/image-kek/1a2b"

func TestPacketRoundTrip(t *testing.T) {
	kek := secret.Random(32)
	private := secret.Copy([]byte(`{"symkey":"..."}`))
	raw, err := SealPacket(kek, kid, private)
	must(t, err)
	if bytes.Contains(raw, private.Reveal()) {
		t.Fatal("the packet shows what it wraps")
	}
	p, err := ParsePacket(raw)
	must(t, err)
	if p.KID != kid || p.WrapType != "A256GCM" || len(p.IV) != 12 {
		t.Fatalf("%+v", p)
	}
	got, err := p.Open(kek)
	must(t, err)
	if !got.Equal(private) {
		t.Fatal("unwrapped something else")
	}
	if _, err := p.Open(secret.Random(32)); err == nil {
		t.Error("another key opens it")
	}
	if _, err := p.Open(secret.Random(16)); err == nil {
		t.Error("a short key opens it")
	}
	for i := range p.WrappedData {
		p.WrappedData[i] ^= 1
		if _, err := p.Open(kek); err == nil {
			t.Fatalf("byte %d may be flipped", i)
		}
		p.WrappedData[i] ^= 1
	}
	again, err := SealPacket(kek, kid, private)
	must(t, err)
	if bytes.Equal(again, raw) {
		t.Error("two packets share an IV")
	}
}

// The demo key and the expected options are those of the field's conformance
// vector (guest-protocol 11.3). The packet is made here with the standard
// library alone, in the byte order of the field's tools.
func TestPacketOfTheField(t *testing.T) {
	kek, err := hex.DecodeString("d99b7705b0ba7a168295b3a3367270b0dd9b371bf514ca8b9ba7f0a33711daea")
	must(t, err)
	const plbco = `{"symkey":"1jL2jJV0Oyz2nmPkLtqulW6cKcpIUN5FpILcVnP5Uqs=","digest":"sha256:18be1897f9402f27c8c0eba7c86e0c00f5656db62961b5949d55f9565c42c6e7","cipheroptions":{"nonce":"r10F9oaCu+nWFXfod3l83g=="}}`
	block, err := aes.NewCipher(kek)
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	iv := make([]byte, 12)
	wrapped := base64.StdEncoding.EncodeToString(gcm.Seal(nil, iv, []byte(plbco), nil))
	ivText := base64.StdEncoding.EncodeToString(iv)
	for name, doc := range map[string]string{
		"version 1": fmt.Sprintf(`{"kid":"kbs:///default/test-key/1","wrapped_data":%q,"iv":%q,"wrap_type":"A256GCM"}`, wrapped, ivText),
		"version 2": fmt.Sprintf(`{"version":"0.1.0","provider":"kbs","kid":"kbs:///default/test-key/1","provider_settings":{},"annotations":{},"iv":%q,"wrap_type":"A256GCM","wrapped_data":%q}`, ivText, wrapped),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ParsePacket([]byte(doc))
			must(t, err)
			opened, err := p.Open(secret.Copy(kek))
			must(t, err)
			private, err := ParsePrivate(opened)
			must(t, err)
			if base64.StdEncoding.EncodeToString(private.Key.Reveal()) != "1jL2jJV0Oyz2nmPkLtqulW6cKcpIUN5FpILcVnP5Uqs=" ||
				base64.StdEncoding.EncodeToString(private.Nonce) != "r10F9oaCu+nWFXfod3l83g==" ||
				private.Digest != "sha256:18be1897f9402f27c8c0eba7c86e0c00f5656db62961b5949d55f9565c42c6e7" {
				t.Errorf("nonce %x, digest %s", private.Nonce, private.Digest)
			}
		})
	}
}

func TestParsePacketRefuses(t *testing.T) {
	good := map[string]any{"kid": kid, "wrapped_data": randomBytes(48), "iv": randomBytes(12), "wrap_type": "A256GCM"}
	tests := []struct {
		name, member string
		value        any
		want         string
	}{
		{"GCM with CTR's name", "wrap_type", "A256CTR", "IV of 12"},
		{"CBC", "wrap_type", "A256CBC", "not supported"},
		{"no wrap type", "wrap_type", nil, "not supported"},
		{"no IV", "iv", nil, "IV of 0"},
		{"long IV", "iv", randomBytes(16), "IV of 16"},
		{"no data", "wrapped_data", nil, "no wrapped data"},
		{"only a tag", "wrapped_data", randomBytes(16), "no wrapped data"},
		{"other provider", "provider", "aliyun", "provider"},
		{"other version", "version", "9.9.9", "version"},
		{"no kid", "kid", nil, "key ID"},
		{"kid of two parts", "kid", "kbs:///a/b", "key ID"},
		{"kid that climbs", "kid", "kbs:///a/../b", "key ID"},
		{"kid with a query", "kid", "kbs:///a/b/c?x", "key ID"},
		{"kid of another scheme", "kid", "file:///a/b/c", "key ID"},
		{"kid is a number", "kid", 7, "kid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc := map[string]any{}
			for k, v := range good {
				doc[k] = v
			}
			if doc[tt.member] = tt.value; tt.value == nil {
				delete(doc, tt.member)
			}
			raw, err := json.Marshal(doc)
			must(t, err)
			if _, err := ParsePacket(raw); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
	raw, err := json.Marshal(good)
	must(t, err)
	for _, bad := range []string{string(raw) + "{}", strings.Replace(string(raw), "{", `{"kid":"kbs:///x/y/z",`, 1), "[]", ""} {
		if _, err := ParsePacket([]byte(bad)); err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
	if _, err := ParsePacket(bytes.Repeat([]byte(" "), maxPacket+1)); err == nil {
		t.Error("accepted a huge packet")
	}
}

// A256CTR is what peers may write and what no change is noticed in, so the
// options that come out must be options.
func TestPacketCTR(t *testing.T) {
	kek, iv := secret.Random(32), randomBytes(16)
	_, _, priv := encrypt(t, []byte("plain"))
	doc, err := priv.Marshal()
	must(t, err)
	block, err := aes.NewCipher(kek.Reveal())
	must(t, err)
	wrapped := make([]byte, doc.Len())
	cipher.NewCTR(block, iv).XORKeyStream(wrapped, doc.Reveal())
	raw := fmt.Appendf(nil, `{"kid":%q,"wrapped_data":%q,"iv":%q,"wrap_type":"A256CTR"}`, kid, b64(wrapped), b64(iv))
	p, err := ParsePacket(raw)
	must(t, err)
	got, err := p.Open(kek)
	must(t, err)
	if !got.Equal(doc) {
		t.Error("unwrapped something else")
	}
	for name, key := range map[string]secret.Bytes{"another key": secret.Random(32), "a short key": secret.Random(16)} {
		if _, err := p.Open(key); err == nil {
			t.Errorf("%s opens it", name)
		}
	}
	if err := (WrappedKey{SchemeProvider, raw}).Authentic(); err == nil {
		t.Error("it passes for authentic")
	}
}

func TestNormalizeKID(t *testing.T) {
	for in, want := range map[string]string{
		"kbs:///a/b/c": "kbs:///a/b/c", "/a/b/c": "kbs:///a/b/c", "host:8080/a/b/c": "kbs://host:8080/a/b/c",
		"kbs://host/a/b/c": "kbs://host/a/b/c", "kbs+pkcs11:///a/b/c": "kbs+pkcs11:///a/b/c",
	} {
		if got, err := NormalizeKID(in); err != nil || got != want {
			t.Errorf("%q gives %q, %v", in, got, err)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	raw, err := SealPacket(secret.Random(32), kid, secret.Copy([]byte("x")))
	must(f, err)
	f.Add(raw)
	f.Add([]byte(`{"kid":"/a/b/c","wrapped_data":"AAAAAAAAAAAAAAAAAAAAAA==","iv":"AAAAAAAAAAAAAAAAAAAAAA==","wrap_type":"A256CTR"}`))
	f.Add([]byte(`{"version":"0.1.0","provider":"kbs","kid":"/a/b/c","wrapped_data":"AAAAAAAAAAAAAAAAAAAAAA==","iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM"}`))
	kek := secret.Random(32)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePacket(raw)
		if err != nil {
			return
		}
		if k, err := NormalizeKID(p.KID); err != nil || k != p.KID {
			t.Fatalf("accepted the key ID %q", p.KID)
		}
		if _, err := p.Open(kek); err == nil {
			t.Fatal("a packet opened with a key drawn at random")
		}
	})
}
