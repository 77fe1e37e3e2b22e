package secondguest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"testing"

	"github.com/lestrrat-go/jwx/v3/jwa"
)

// The vectors of section 19.
const (
	nonce   = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	devices = `{"sampledevice":{"report_data":"41BnlZWFRDfoT1LpqCZx0rgeDM5f+C+zUR+tUy0u+cIEE/m7kp1c0ejsHHY4+Lsl","svn":"2"}}`
	answer  = `{"protected":"eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJIeFFCUnIteHNsSDRUMDNiNE5UTno5ZDZfWmhLbFNEalY1UUNINE1TdTU0IiwieSI6IjdKbGFDTEg2ZHdUZlBjd0xVS2xtVW1QN2R4SDVYNS1LUkp4UWx1UjhpU3MifX0","encrypted_key":"IC-TxB6P94l1m8KtMEKBPVM4CBSoUuX9KUa5kyy9fsmuUDIVmfHZlw","iv":"YGFiY2RlZmdoaWpr","ciphertext":"xE1laWi05NR88g1TYA","tag":"u5yKhbnht5rWWl2-oF95rg"}`
)

func vectorKey() map[string]string {
	return map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
		"x": "UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18", "y": "RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q",
	}
}

func TestDigestVectors(t *testing.T) {
	for _, tt := range []struct {
		name string
		text map[string]any
		want string
	}{
		{"primary", map[string]any{"additional-evidence": "", "nonce": nonce, "tee-pubkey": vectorKey()}, "c97fc717bffcdca39b3485d4019c1de4133fc9622ba484e947b417b83ffbae1abbf11747fdebdecaaabc5b407be66821"},
		{"device", map[string]any{"nonce": nonce, "tee-pubkey": vectorKey()}, "e350679595854437e84f52e9a82671d2b81e0cce5ff82fb3511fad532d2ef9c20413f9bb929d5cd1e8ec1c7638f8bb25"},
		{"primary with a device", map[string]any{"additional-evidence": devices, "nonce": nonce, "tee-pubkey": vectorKey()}, "f343ddfacbd2647d0c6f8e8f5d27daad47b4409cf74fe05d95a8cb8f946eab8addbe20d95d176e4ec46bacc0d780862e"},
		{"structured", map[string]any{"a": "test"}, ""},
	} {
		if tt.want == "" {
			if text := string(canonical(tt.text)); text != `{"a":"test"}` {
				t.Errorf("%s: %s", tt.name, text)
			}
			continue
		}
		got, err := sum("sha384", canonical(tt.text))
		if err != nil || hex.EncodeToString(got) != tt.want {
			t.Errorf("%s: %x, %v", tt.name, got, err)
		}
	}
}

func TestAnswerVector(t *testing.T) {
	scalar := make([]byte, 32)
	for i := range scalar {
		scalar[i] = byte(i + 1)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{public: vectorKey(), ec: private, alg: jwa.ECDH_ES_A256KW()}
	got, err := k.open([]byte(answer))
	if err != nil || string(got) != "hello trustee" {
		t.Errorf("%q, %v", got, err)
	}
}

// The vector of RFC 3394, section 4.6, and the order of a rewritten header.
func TestUnwrap(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := rewriteOrFail(t, `{"enc":"A256GCM","epk":{"y":"b","x":"a"},"alg":"x"}`); got != `{"alg":"x","enc":"A256GCM","epk":{"x":"a","y":"b"}}` {
		t.Errorf("rewritten to %s", got)
	}
	key := unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	wrapped := unhex("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
	got, err := unwrap(key, wrapped)
	if want := unhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("unwrapped %x, %v", got, err)
	}
	wrapped[0] ^= 1
	if _, err := unwrap(key, wrapped); err == nil {
		t.Error("a spoiled key opened")
	}
}

func rewriteOrFail(t *testing.T, header string) string {
	t.Helper()
	out, err := rewrite([]byte(header))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
