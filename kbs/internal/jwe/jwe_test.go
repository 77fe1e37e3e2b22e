package jwe

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var allKeys = []string{KeyP256, KeyP384, KeyP521, KeyRSA, KeyMLKEM, KeyHybrid}

func generate(t testing.TB, alg string) *PrivateKey {
	t.Helper()
	k, err := Generate(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, jwk api.JWK, plaintext []byte) api.JWE {
	t.Helper()
	m, err := Seal(nil, jwk, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// prepare makes a key ready, as Seal does.
func prepare(jwk api.JWK) (*recipient, error) {
	p, err := parse(jwk)
	if err != nil {
		return nil, err
	}
	return p.recipient(rand.Reader)
}

// counting returns n bytes first, first+1, ...
func counting(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// The key of kbs-protocol 19: d = 0102...1f20.
func vectorKey(t testing.TB) *PrivateKey {
	t.Helper()
	c, err := curveOf("P-256")
	if err != nil {
		t.Fatal(err)
	}
	d, err := ecdh.P256().NewPrivateKey(counting(1, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &PrivateKey{AlgECDH, ecPrivate{c, d}}
}

const vectorMessage = `{"protected":"eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJIeFFCUnIteHNsSDRUMDNiNE5UTno5ZDZfWmhLbFNEalY1UUNINE1TdTU0IiwieSI6IjdKbGFDTEg2ZHdUZlBjd0xVS2xtVW1QN2R4SDVYNS1LUkp4UWx1UjhpU3MifX0","encrypted_key":"IC-TxB6P94l1m8KtMEKBPVM4CBSoUuX9KUa5kyy9fsmuUDIVmfHZlw","iv":"YGFiY2RlZmdoaWpr","ciphertext":"xE1laWi05NR88g1TYA","tag":"u5yKhbnht5rWWl2-oF95rg"}`

// Vector 4 of kbs-protocol 19, in both directions and byte for byte.
func TestVector(t *testing.T) {
	key := vectorKey(t)
	if got := key.JWK(); got.X != "UVw9brnjlrkE0_7Kf1T9zQzB6Ze_N13KUVrQpsO0A18" || got.Y != "RTa-OlDzGPv5pUdZAqIhUCvvDVfgjFOyzApW8X2fk1Q" {
		t.Fatalf("public key: %+v", got)
	}
	random := bytes.NewReader(slices.Concat(counting(0x21, 32), counting(0x40, 32), counting(0x60, 12)))
	m, err := Seal(random, key.JWK(), []byte("hello trustee"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != vectorMessage {
		t.Errorf("got  %s\nwant %s", got, vectorMessage)
	}
	var received api.JWE
	if err := json.Unmarshal([]byte(vectorMessage), &received); err != nil {
		t.Fatal(err)
	}
	plain, err := key.Open(received)
	if err != nil || string(plain.Reveal()) != "hello trustee" {
		t.Fatalf("opened %d bytes, %v", plain.Len(), err)
	}

	d := key.half.(ecPrivate).key
	ephemeral, err := ecdh.P256().NewPrivateKey(counting(0x21, 32))
	if err != nil {
		t.Fatal(err)
	}
	z, err := ephemeral.ECDH(d.PublicKey())
	if err != nil || hex.EncodeToString(z) != "4fe243908f378aa1c2a69538822e6ed908c3225d8692575507c649901245150a" {
		t.Errorf("Z = %x, %v", z, err)
	}
	if kek := concatKDF(z, AlgECDH, nil, nil, 256); hex.EncodeToString(kek) != "b403833737c544b17814a63edb2770bdf0bc9b8a51cade91f4f1c64861a2ccf4" {
		t.Errorf("KEK = %x", kek)
	}
}

// Vector 7 of kbs-protocol 19: the text of a header is what gets authenticated.
func TestHeaderText(t *testing.T) {
	text, err := json.Marshal(header{Alg: "fakealg", Enc: "fakeenc"})
	if err != nil || encode(text) != "eyJhbGciOiJmYWtlYWxnIiwiZW5jIjoiZmFrZWVuYyJ9" {
		t.Errorf("%s: %v", text, err)
	}
}

func TestRoundTrip(t *testing.T) {
	sizes := []int{0, 1, 15, 16, 17, 4096, MaxPlaintext}
	for _, alg := range allKeys {
		t.Run(alg, func(t *testing.T) {
			key, other := generate(t, alg), generate(t, alg)
			if err := Check(key.JWK()); err != nil {
				t.Fatal(err)
			}
			for _, n := range sizes {
				want := secret.Random(n)
				m := seal(t, key.JWK(), want.Reveal())
				got, err := key.Open(m)
				if err != nil || !got.Equal(want) {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if _, err := other.Open(m); !errors.Is(err, ErrOpen) {
					t.Fatalf("another key: %v", err)
				}
			}
			if _, err := Seal(nil, key.JWK(), make([]byte, MaxPlaintext+1)); err == nil {
				t.Fatal("sealed too long a secret")
			}
		})
	}
}

// The largest message must fit the 4 MiB that clients read.
func TestLargestMessageFits(t *testing.T) {
	n := (maxRSA/8*8 + 5) / 6 // the longest encrypted_key
	m := seal(t, generate(t, KeyP521).JWK(), make([]byte, MaxPlaintext))
	raw, err := json.Marshal(m)
	if err != nil || len(raw)-len(m.EncryptedKey)+n > 4<<20 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
}

// The field's guest parses the header and writes it again: alg, enc, the other
// members sorted, compact. That text is its associated data (kbs-protocol 4).
func TestHeaderSurvivesReserialisation(t *testing.T) {
	for _, alg := range allKeys {
		m := seal(t, generate(t, alg).JWK(), []byte("x"))
		text, err := base64.RawURLEncoding.DecodeString(m.Protected)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		again := fmt.Sprintf(`{"alg":%q,"enc":%q`, members["alg"], members["enc"])
		delete(members, "alg")
		delete(members, "enc")
		if len(members) > 0 {
			rest, err := json.Marshal(members) // maps are written in sorted order
			if err != nil {
				t.Fatal(err)
			}
			again += "," + string(rest[1:])
		} else {
			again += "}"
		}
		if got := base64.RawURLEncoding.EncodeToString([]byte(again)); got != m.Protected {
			t.Errorf("%s: %s becomes %s", alg, text, again)
		}
	}
}

func TestSealRefusesKeys(t *testing.T) {
	ec := generate(t, KeyP256).JWK()
	p521 := generate(t, KeyP521).JWK()
	rsaJWK := generate(t, KeyRSA).JWK()
	small := rsaOf(t, 1024)
	kem, hybrid := generate(t, KeyMLKEM).JWK(), generate(t, KeyHybrid).JWK()
	kemBytes, err1 := decode(kem.Pub, 2000)
	hybridBytes, err2 := decode(hybrid.Pub, 2000)
	orderEight, err3 := hex.DecodeString("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	with := func(k api.JWK, f func(*api.JWK)) api.JWK { f(&k); return k }
	tests := []struct {
		name string
		key  api.JWK
	}{
		{"empty", api.JWK{}},
		{"RSA1_5", with(rsaJWK, func(k *api.JWK) { k.Alg = "RSA1_5" })},
		{"RSA-OAEP with SHA-1", with(rsaJWK, func(k *api.JWK) { k.Alg = "RSA-OAEP" })},
		{"RSA of 1024 bits", small},
		{"RSA of 16384 bits", with(rsaJWK, func(k *api.JWK) { k.N = encode(bytes.Repeat([]byte{0xff}, 2048)) })},
		{"RSA with even modulus", with(rsaJWK, func(k *api.JWK) { k.N = encode(append(bytes.Repeat([]byte{0xff}, 255), 0xfe)) })},
		{"RSA with leading zero", with(rsaJWK, func(k *api.JWK) { k.N = encode(append([]byte{0}, bytes.Repeat([]byte{0xff}, 255)...)) })},
		{"RSA with e = 1", with(rsaJWK, func(k *api.JWK) { k.E = "AQ" })},
		{"RSA with e = 3", with(rsaJWK, func(k *api.JWK) { k.E = "Aw" })},
		{"RSA with even e", with(rsaJWK, func(k *api.JWK) { k.E = encode([]byte{1, 0, 2}) })},
		{"RSA with huge e", with(rsaJWK, func(k *api.JWK) { k.E = encode(bytes.Repeat([]byte{0xff}, 4)) })},
		{"RSA without e", with(rsaJWK, func(k *api.JWK) { k.E = "" })},
		{"EC with an RSA alg", with(ec, func(k *api.JWK) { k.Alg = AlgRSA })},
		{"ECDH-ES without wrapping", with(ec, func(k *api.JWK) { k.Alg = "ECDH-ES" })},
		{"unknown curve", with(ec, func(k *api.JWK) { k.Crv = "P-224" })},
		{"curve of another key", with(ec, func(k *api.JWK) { k.Crv = "P-521" })},
		{"P-521 cut to 65 bytes", with(p521, func(k *api.JWK) { k.X = encode(counting(1, 65)) })},
		{"off the curve", with(ec, func(k *api.JWK) { k.Y = k.X })},
		{"origin", with(ec, func(k *api.JWK) { k.X, k.Y = encode(make([]byte, 32)), encode(make([]byte, 32)) })},
		{"line break in x", with(ec, func(k *api.JWK) { k.X = k.X[:20] + "\n" + k.X[20:] })},
		{"padded x", with(ec, func(k *api.JWK) { k.X += "=" })},
		{"OKP", api.JWK{Kty: "OKP", Crv: "X25519", Alg: AlgECDH, X: encode(make([]byte, 32))}},
		{"EC with a KEM's alg", with(ec, func(k *api.JWK) { k.Alg = AlgHybrid })},
		{"AKP of another alg", with(kem, func(k *api.JWK) { k.Alg = "ML-KEM-1024+A256KW" })},
		{"ML-KEM cut", with(kem, func(k *api.JWK) { k.Pub = encode(kemBytes[:1183]) })},
		{"ML-KEM longer", with(kem, func(k *api.JWK) { k.Pub = encode(append(bytes.Clone(kemBytes), 0)) })},
		{"ML-KEM empty", with(kem, func(k *api.JWK) { k.Pub = "" })},
		{"ML-KEM with coefficients out of range", with(kem, func(k *api.JWK) { k.Pub = encode(bytes.Repeat([]byte{0xff}, 1184)) })},
		{"ML-KEM padded", with(kem, func(k *api.JWK) { k.Pub += "=" })},
		{"hybrid without its second half", with(hybrid, func(k *api.JWK) { k.Pub = encode(hybridBytes[:1184]) })},
		{"hybrid longer", with(hybrid, func(k *api.JWK) { k.Pub = encode(append(bytes.Clone(hybridBytes), 0)) })},
		{"hybrid with an ML-KEM key out of range", with(hybrid, func(k *api.JWK) { k.Pub = encode(bytes.Repeat([]byte{0xff}, 1216)) })},
		{"hybrid with the point zero", with(hybrid, func(k *api.JWK) { k.Pub = encode(append(bytes.Clone(hybridBytes[:1184]), make([]byte, 32)...)) })},
		{"hybrid with the point one", with(hybrid, func(k *api.JWK) {
			k.Pub = encode(append(append(bytes.Clone(hybridBytes[:1184]), 1), make([]byte, 31)...))
		})},
		{"hybrid with a point of order eight", with(hybrid, func(k *api.JWK) { k.Pub = encode(append(bytes.Clone(hybridBytes[:1184]), orderEight...)) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := Seal(nil, tt.key, []byte("x")); err == nil {
				t.Fatalf("sealed %+v", m)
			}
			if Check(tt.key) == nil {
				t.Fatal("the key passes the check")
			}
		})
	}
}

func rsaOf(t *testing.T, bits int) api.JWK {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return rsaPrivate{key}.jwk()
}

// Both algorithms take 76 random bytes: scalar or OAEP seed, content key, IV.
func TestSealNeedsRandomness(t *testing.T) {
	for _, alg := range []string{KeyP256, KeyRSA} {
		jwk := generate(t, alg).JWK()
		for _, n := range []int{0, 1, 31, 32, 33, 63, 64, 75} {
			if _, err := Seal(bytes.NewReader(counting(1, n)), jwk, []byte("x")); err == nil {
				t.Errorf("%s: sealed with %d random bytes", alg, n)
			}
		}
		if _, err := Seal(bytes.NewReader(counting(1, 76)), jwk, []byte("x")); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	if _, err := Seal(zeros{}, generate(t, KeyP256).JWK(), nil); err == nil {
		t.Error("sealed with an ephemeral key of zero")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestOpenRefuses(t *testing.T) {
	key := generate(t, KeyP256)
	good := seal(t, key.JWK(), []byte("a secret"))
	header := func(text string) func(*api.JWE) {
		return func(m *api.JWE) { m.Protected = encode([]byte(text)) }
	}
	var h map[string]any
	text, err := decode(good.Protected, maxHeader)
	if err != nil || json.Unmarshal(text, &h) != nil {
		t.Fatal(err)
	}
	epk, err := json.Marshal(h["epk"])
	if err != nil {
		t.Fatal(err)
	}
	p384 := seal(t, generate(t, KeyP384).JWK(), []byte("x"))
	flip := func(s string) string {
		b, err := decode(s, MaxPlaintext)
		if err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		return encode(b)
	}
	tests := []struct {
		name string
		do   func(*api.JWE)
	}{
		{"empty", func(m *api.JWE) { *m = api.JWE{} }},
		{"flipped ciphertext", func(m *api.JWE) { m.Ciphertext = flip(m.Ciphertext) }},
		{"flipped tag", func(m *api.JWE) { m.Tag = flip(m.Tag) }},
		{"flipped iv", func(m *api.JWE) { m.IV = flip(m.IV) }},
		{"flipped key", func(m *api.JWE) { m.EncryptedKey = flip(m.EncryptedKey) }},
		{"short tag", func(m *api.JWE) { m.Tag = encode(make([]byte, 12)) }},
		{"long iv", func(m *api.JWE) { m.IV = encode(make([]byte, 16)) }},
		{"empty key", func(m *api.JWE) { m.EncryptedKey = "" }},
		{"odd key", func(m *api.JWE) { m.EncryptedKey = encode(make([]byte, 41)) }},
		{"padding", func(m *api.JWE) { m.Tag += "==" }},
		{"line break", func(m *api.JWE) { m.Tag = m.Tag[:4] + "\n" + m.Tag[4:] }},
		{"standard alphabet", func(m *api.JWE) { m.Ciphertext = "+/+/" }},
		{"trailing bits", func(m *api.JWE) { m.Tag = m.Tag[:len(m.Tag)-1] + "h" }},
		{"oversize ciphertext", func(m *api.JWE) { m.Ciphertext = strings.Repeat("A", MaxPlaintext*4/3+8) }},
		{"oversize key", func(m *api.JWE) { m.EncryptedKey = strings.Repeat("A", 1<<20) }},
		{"oversize header", header(`{"alg":"` + strings.Repeat("A", maxHeader) + `"}`)},
		{"header with other spacing", header(strings.Replace(string(text), ",", ", ", 1))},
		{"header with trailing data", header(string(text) + "{}")},
		{"header is no object", header(`"x"`)},
		{"duplicate member", header(`{"alg":"RSA1_5",` + string(text)[1:])},
		{"RSA1_5", header(`{"alg":"RSA1_5","enc":"A256GCM"}`)},
		{"direct", header(`{"alg":"dir","enc":"A256GCM"}`)},
		{"another key's alg", header(`{"alg":"RSA-OAEP-256","enc":"A256GCM"}`)},
		{"wrong enc", header(`{"alg":"ECDH-ES+A256KW","enc":"A128GCM","epk":` + string(epk) + `}`)},
		{"CBC", header(`{"alg":"ECDH-ES+A256KW","enc":"A256CBC-HS512","epk":` + string(epk) + `}`)},
		{"enc is no string", header(`{"alg":"ECDH-ES+A256KW","enc":null,"epk":` + string(epk) + `}`)},
		{"ALG in capitals", header(`{"ALG":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + string(epk) + `}`)},
		{"no epk", header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM"}`)},
		{"epk null", header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":null}`)},
		{"epk of another type", header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + strings.Replace(string(epk), `"EC"`, `"OKP"`, 1) + `}`)},
		{"epk off the curve", header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"` + encode(counting(0, 32)) + `","y":"` + encode(counting(0, 32)) + `"}}`)},
		{"epk on another curve", func(m *api.JWE) { m.Protected = p384.Protected }},
		{"message on another curve", func(m *api.JWE) { *m = p384 }},
		{"crit", header(`{"alg":"ECDH-ES+A256KW","crit":["x"],"enc":"A256GCM","epk":` + string(epk) + `}`)},
		{"zip", header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + string(epk) + `,"zip":"DEF"}`)},
		{"apu", header(`{"alg":"ECDH-ES+A256KW","apu":"QQ","enc":"A256GCM","epk":` + string(epk) + `}`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := good
			tt.do(&m)
			if got, err := key.Open(m); err == nil {
				t.Fatalf("opened %d bytes", got.Len())
			} else if len(err.Error()) > 300 {
				t.Fatalf("the error repeats the input: %d bytes", len(err.Error()))
			}
		})
	}
	if got, err := key.Open(good); err != nil || string(got.Reveal()) != "a secret" {
		t.Fatalf("the untouched message: %v", err)
	}
}

// A sender may write any header and authenticate it properly; only what the
// protocol has may open. The received text is what counts, so order and white
// space are the sender's choice.
func TestHeaders(t *testing.T) {
	key := generate(t, KeyP256)
	tests := []struct {
		name, header string // EPK stands for the right epk, X and Y for its coordinates
		opens        bool
	}{
		{"as Seal writes it", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":EPK}`, true},
		{"another order and white space", ` { "epk": EPK , "enc":"A256GCM","alg":"ECDH-ES+A256KW" } `, true},
		{"harmless members", `{"alg":"ECDH-ES+A256KW","cty":"x","enc":"A256GCM","epk":EPK,"kid":"1","typ":"JWE"}`, true},
		{"duplicate alg", `{"alg":"dir","alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":EPK}`, false},
		{"trailing data", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":EPK}1`, false},
		{"alg of an RSA key", `{"alg":"RSA-OAEP-256","enc":"A256GCM","epk":EPK}`, false},
		{"alg RSA1_5", `{"alg":"RSA1_5","enc":"A256GCM","epk":EPK}`, false},
		{"alg without wrapping", `{"alg":"ECDH-ES","enc":"A256GCM","epk":EPK}`, false},
		{"ALG", `{"ALG":"ECDH-ES+A256KW","enc":"A256GCM","epk":EPK}`, false},
		{"enc of 128 bits", `{"alg":"ECDH-ES+A256KW","enc":"A128GCM","epk":EPK}`, false},
		{"no enc", `{"alg":"ECDH-ES+A256KW","epk":EPK}`, false},
		{"crv of another curve", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-384","kty":"EC","x":X,"y":Y}}`, false},
		{"no crv", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"kty":"EC","x":X,"y":Y}}`, false},
		{"kty of another type", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"OKP","x":X,"y":Y}}`, false},
		{"crit", `{"alg":"ECDH-ES+A256KW","crit":["exp"],"enc":"A256GCM","epk":EPK,"exp":1}`, false},
		{"zip", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":EPK,"zip":"DEF"}`, false},
		{"apu", `{"alg":"ECDH-ES+A256KW","apu":"","enc":"A256GCM","epk":EPK}`, false},
		{"apv", `{"alg":"ECDH-ES+A256KW","apv":"","enc":"A256GCM","epk":EPK}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to, err := prepare(key.JWK())
			if err != nil {
				t.Fatal(err)
			}
			epk, err := json.Marshal(to.header.EPK)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer("EPK", string(epk), "X,", `"`+to.header.EPK.X+`",`, "Y}", `"`+to.header.EPK.Y+`"}`).Replace(tt.header)
			m, err := sealUnder(rand.Reader, to, []byte(text), []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := key.Open(m); (err == nil) != tt.opens {
				t.Fatalf("%s: %v", text, err)
			}
		})
	}
}

func TestOpenRSARefuses(t *testing.T) {
	key := generate(t, KeyRSA)
	m := seal(t, key.JWK(), []byte("x"))
	short := seal(t, key.JWK(), []byte("x"))
	r, err := prepare(key.JWK())
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := r.wrap(rand.Reader, make([]byte, 16)) // a key of the wrong length
	if err != nil {
		t.Fatal(err)
	}
	short.EncryptedKey = encode(wrapped)
	if _, err := key.Open(short); !errors.Is(err, ErrOpen) {
		t.Errorf("128-bit content key: %v", err)
	}
	m.Protected = encode([]byte(`{"alg":"RSA-OAEP-256","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"","y":""}}`))
	if _, err := key.Open(m); err == nil {
		t.Error("an RSA message with epk was opened")
	}
}

func TestPEM(t *testing.T) {
	for _, alg := range allKeys {
		key := generate(t, alg)
		text, err := key.PEM()
		if key.alg == AlgMLKEM || key.alg == AlgHybrid {
			if !errors.Is(err, ErrNoPEM) {
				t.Errorf("%s: %v", alg, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(text.Reveal())
		if block == nil || len(rest) != 0 {
			t.Fatalf("%s: not one PEM block", alg)
		}
		if alg == KeyRSA {
			back, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil || block.Type != "RSA PRIVATE KEY" || !back.Equal(key.half.(rsaPrivate).key) {
				t.Errorf("%s: %s, %v", alg, block.Type, err)
			}
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil || block.Type != "PRIVATE KEY" {
			t.Fatalf("%s: %s, %v", alg, block.Type, err)
		}
		back, err := parsed.(interface {
			ECDH() (*ecdh.PrivateKey, error)
		}).ECDH()
		if err != nil || !back.Equal(key.half.(ecPrivate).key) {
			t.Errorf("%s: another key came back (%v)", alg, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	for alg, crv := range map[string]string{"": "P-256", AlgECDH: "P-256", KeyP256: "P-256", KeyP384: "P-384", KeyP521: "P-521", KeyRSA: "", KeyMLKEM: "", KeyHybrid: ""} {
		if got := generate(t, alg).JWK(); got.Crv != crv || !KnownKey(alg) {
			t.Errorf("%q: curve %q", alg, got.Crv)
		}
	}
	for _, alg := range []string{"RSA1_5", "P-256", "ecdh-es+a256kw", "ML-KEM-1024+A256KW"} {
		if _, err := Generate(alg); err == nil || KnownKey(alg) {
			t.Errorf("made a key for %q", alg)
		}
	}
}

func TestNothingPrintsAPrivateKey(t *testing.T) {
	key := vectorKey(t)
	forms := []string{hex.EncodeToString(counting(1, 32)), fmt.Sprint(counting(1, 32))}
	for _, v := range []any{key, struct{ k *PrivateKey }{key}, []*PrivateKey{key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d"} {
			out := fmt.Sprintf(verb, v)
			for _, form := range forms {
				if strings.Contains(strings.ToLower(out), form) {
					t.Fatalf("%s leaks: %s", verb, out)
				}
			}
		}
	}
	if _, err := json.Marshal(key); !errors.Is(err, secret.ErrMarshal) {
		t.Fatalf("marshalled: %v", err)
	}
}

// FuzzOpen feeds arbitrary messages. Only what was sealed may open, so
// whatever opens must hold the text of one of the seeds. (An RSA key is not
// used here: every fuzz worker would first have to make one, slowly.)
func FuzzOpen(f *testing.F) {
	key := vectorKey(f)
	plain := []byte("fuzz me")
	raw, err := json.Marshal(seal(f, key.JWK(), plain))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(vectorMessage))
	f.Add([]byte(`{"protected":"e30","encrypted_key":"","iv":"","ciphertext":"","tag":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m api.JWE
		if json.Unmarshal(raw, &m) != nil {
			return
		}
		got, err := key.Open(m)
		if err == nil && !bytes.Equal(got.Reveal(), plain) && string(got.Reveal()) != "hello trustee" {
			t.Fatalf("forged a message: %s", raw)
		}
	})
}

// FuzzHeader feeds arbitrary protected headers.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"AA","y":"AA"}}`))
	f.Add([]byte(`{"alg":"RSA-OAEP-256","enc":"A256GCM"}`))
	f.Add([]byte(`{"alg":"RSA-OAEP-256","enc":"A256GCM","epk":null,"crit":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := parseHeader(encode(text))
		if err != nil {
			return
		}
		var std map[string]any
		if err := json.Unmarshal(text, &std); err != nil || std["alg"] != h.Alg || std["enc"] != EncGCM || std["crit"] != nil {
			t.Fatalf("%q read as %+v (%v)", text, h, err)
		}
	})
}

// FuzzSeal feeds arbitrary public keys.
func FuzzSeal(f *testing.F) {
	for _, alg := range allKeys {
		raw, err := json.Marshal(generate(f, alg).JWK())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var k api.JWK
		if json.Unmarshal(raw, &k) != nil {
			return
		}
		m, err := Seal(nil, k, []byte("x"))
		if err == nil && (m.Protected == "" || m.EncryptedKey == "" || m.Tag == "") {
			t.Fatalf("incomplete message %+v", m)
		}
	})
}
