package jwe

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// The samples of NIST SP 800-185 for KMAC256 without customization, and for
// another length.
func TestKMAC(t *testing.T) {
	key := counting(0x40, 32)
	const want = "75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69"
	if got := hex.EncodeToString(kmac256(key, counting(0, 200), 64)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	long, short := kmac256(key, nil, 64), kmac256(key, nil, 24)
	if bytes.HasPrefix(long, short) {
		t.Error("the length is not part of the input")
	}
}

// vector is one message with all that went into it, for other implementations.
// Byte strings are hex, members of the message are as on the wire.
type vector struct {
	Alg                string  `json:"alg"`
	MLKEMSeed          string  `json:"ml_kem_seed"` // d and z of FIPS 203
	X25519Private      string  `json:"x25519_private,omitempty"`
	X25519Ephemeral    string  `json:"x25519_ephemeral,omitempty"`
	EncapsulationCoins string  `json:"encapsulation_randomness"` // m of FIPS 203
	CEK                string  `json:"content_key"`
	IV                 string  `json:"iv"`
	Plaintext          string  `json:"plaintext"`
	Public             api.JWK `json:"public"`
	MLKEMShared        string  `json:"ml_kem_shared"`
	X25519Shared       string  `json:"x25519_shared,omitempty"`
	KeyWrappingKey     string  `json:"key_wrapping_key"`
	Message            api.JWE `json:"message"`
}

func vectorFile() string { return filepath.Join("testdata", "vectors", "kem.json") }

func readVectors(t *testing.T) []vector {
	t.Helper()
	raw, err := os.ReadFile(vectorFile())
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(raw, &vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

// Each published message opens, and comes out the same when it is made anew by
// a second reading of the derivation.
func TestKEMVectors(t *testing.T) {
	fresh := []vector{kemVector(t, AlgMLKEM), kemVector(t, AlgHybrid)}
	if os.Getenv("UPDATE_VECTORS") != "" {
		raw, err := json.MarshalIndent(fresh, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile(), append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published := readVectors(t)
	if !slices.Equal(published, fresh) {
		t.Errorf("the vectors are not what is made now: %+v", fresh)
	}
	for _, v := range published {
		got, err := v.key(t).Open(v.Message)
		if err != nil || string(got.Reveal()) != v.Plaintext {
			t.Errorf("%s: %v", v.Alg, err)
		}
	}
}

func (v vector) key(t *testing.T) *PrivateKey {
	t.Helper()
	kem, err := mlkem.NewDecapsulationKey768(unhex(t, v.MLKEMSeed))
	if err != nil {
		t.Fatal(err)
	}
	if v.Alg == AlgMLKEM {
		return &PrivateKey{AlgMLKEM, mlkemPrivate{kem}}
	}
	point, err := ecdh.X25519().NewPrivateKey(unhex(t, v.X25519Private))
	if err != nil {
		t.Fatal(err)
	}
	return &PrivateKey{AlgHybrid, hybridPrivate{kem, point}}
}

// kemVector makes a message with counted bytes for random ones.
func kemVector(t *testing.T, alg string) vector {
	t.Helper()
	v := vector{
		Alg: alg, MLKEMSeed: hex.EncodeToString(counting(0, 64)), EncapsulationCoins: hex.EncodeToString(counting(0x80, 32)),
		CEK: hex.EncodeToString(counting(0xa0, 32)), IV: hex.EncodeToString(counting(0xc0, 12)), Plaintext: "hello trustee",
	}
	if alg == AlgHybrid {
		v.X25519Private, v.X25519Ephemeral = hex.EncodeToString(counting(0x40, 32)), hex.EncodeToString(counting(0x60, 32))
	}
	key := v.key(t)
	v.Public = key.JWK()
	parsed, err := parse(v.Public)
	if err != nil {
		t.Fatal(err)
	}
	var to *recipient
	switch p := parsed.(type) {
	case mlkemPublic:
		shared, ciphertext, err := mlkemtest.Encapsulate768(p.key, unhex(t, v.EncapsulationCoins))
		if err != nil {
			t.Fatal(err)
		}
		v.MLKEMShared = hex.EncodeToString(shared)
		to = kemRecipient(alg, ciphertext, kemKey(shared, alg, 192))
	case hybridPublicKey:
		shared, ciphertext, err := mlkemtest.Encapsulate768(p.mlkem, unhex(t, v.EncapsulationCoins))
		if err != nil {
			t.Fatal(err)
		}
		ephemeral, err := ecdh.X25519().NewPrivateKey(unhex(t, v.X25519Ephemeral))
		if err != nil {
			t.Fatal(err)
		}
		z, err := ephemeral.ECDH(p.point)
		if err != nil {
			t.Fatal(err)
		}
		v.MLKEMShared, v.X25519Shared = hex.EncodeToString(shared), hex.EncodeToString(z)
		if to, err = p.join(shared, ciphertext, ephemeral); err != nil {
			t.Fatal(err)
		}
	}
	v.KeyWrappingKey = hex.EncodeToString(to.kek)
	if want := hex.EncodeToString(secondReading(t, v, to.header.EK)); v.KeyWrappingKey != want {
		t.Errorf("%s: key-wrapping key %s, want %s", alg, v.KeyWrappingKey, want)
	}
	text, err := json.Marshal(to.header)
	if err != nil {
		t.Fatal(err)
	}
	v.Message, err = sealUnder(bytes.NewReader(slices.Concat(unhex(t, v.CEK), unhex(t, v.IV))), to, text, []byte(v.Plaintext))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// secondReading derives the key as ADR 10 and kbs-protocol 4 write it, byte for
// byte and with nothing of the package.
func secondReading(t *testing.T, v vector, ek string) []byte {
	t.Helper()
	secret := append(unhex(t, v.MLKEMShared), unhex(t, v.X25519Shared)...)
	bits := map[string]uint32{AlgMLKEM: 192, AlgHybrid: 256}[v.Alg]
	data := binary.BigEndian.AppendUint32(nil, uint32(len(v.Alg)))
	data = binary.BigEndian.AppendUint32(append(data, v.Alg...), bits)
	if v.Alg == AlgHybrid {
		for _, part := range []string{ek, v.Public.Pub} {
			b, err := decode(part, 2000)
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, b...)
		}
	}
	// KMAC256: bytepad(encode_string(K), 136), X, right_encode(L).
	padded := append([]byte{1, 136}, 2, byte(len(secret)*8>>8), byte(len(secret)*8))
	if len(secret) == 32 { // 256 bits
		padded = []byte{1, 136, 2, 1, 0}
	}
	padded = append(padded, secret...)
	padded = append(padded, make([]byte, 136-len(padded))...)
	tail := []byte{byte(bits), 1}
	if bits == 256 {
		tail = []byte{1, 0, 2}
	}
	h := sha3.NewCSHAKE256([]byte("KMAC"), nil)
	h.Write(slices.Concat(padded, data, tail))
	out := make([]byte, bits/8)
	if _, err := h.Read(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Both halves of the hybrid count: with either changed, on either side, nothing
// opens.
func TestHybridNeedsBothHalves(t *testing.T) {
	key, other := generate(t, KeyHybrid), generate(t, KeyHybrid)
	m := seal(t, key.JWK(), []byte("x"))
	mine, theirs := key.half.(hybridPrivate), other.half.(hybridPrivate)
	for name, half := range map[string]hybridPrivate{
		"another ML-KEM key": {theirs.mlkem, mine.point}, "another X25519 key": {mine.mlkem, theirs.point},
	} {
		if _, err := (&PrivateKey{AlgHybrid, half}).Open(m); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, at := range map[string]int{"ML-KEM ciphertext": 5, "X25519 ciphertext": mlkem.CiphertextSize768 + 5} {
		to, err := prepare(key.JWK())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := decode(to.header.EK, hybridCiphertext)
		if err != nil {
			t.Fatal(err)
		}
		raw[at] ^= 1
		to.header.EK = encode(raw)
		text, err := json.Marshal(to.header)
		if err != nil {
			t.Fatal(err)
		}
		m, err := sealUnder(counter{}, to, text, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := key.Open(m); !errors.Is(err, ErrOpen) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

type counter struct{}

func (counter) Read(b []byte) (int, error) { return copy(b, counting(0, len(b))), nil }

// What a sender may not put into the header of a KEM message.
func TestOpenKEMRefuses(t *testing.T) {
	for _, alg := range []string{KeyMLKEM, KeyHybrid} {
		key := generate(t, alg)
		good := seal(t, key.JWK(), []byte("x"))
		h, err := parseHeader(good.Protected)
		if err != nil {
			t.Fatal(err)
		}
		ek, err := decode(h.EK, 2000)
		if err != nil {
			t.Fatal(err)
		}
		low := append(bytes.Clone(ek[:len(ek)-32]), make([]byte, 32)...)
		for name, header := range map[string]string{
			"no ek":             `{"alg":"` + alg + `","enc":"A256GCM"}`,
			"ek null":           `{"alg":"` + alg + `","ek":null,"enc":"A256GCM"}`,
			"ek empty":          `{"alg":"` + alg + `","ek":"","enc":"A256GCM"}`,
			"ek short":          `{"alg":"` + alg + `","ek":"` + encode(ek[:len(ek)-1]) + `","enc":"A256GCM"}`,
			"ek long":           `{"alg":"` + alg + `","ek":"` + encode(append(bytes.Clone(ek), 0)) + `","enc":"A256GCM"}`,
			"ek and epk":        `{"alg":"` + alg + `","ek":"` + h.EK + `","enc":"A256GCM","epk":{"crv":"P-256","kty":"EC","x":"","y":""}}`,
			"the other's alg":   `{"alg":"` + map[string]string{KeyMLKEM: KeyHybrid, KeyHybrid: KeyMLKEM}[alg] + `","ek":"` + h.EK + `","enc":"A256GCM"}`,
			"ek altered":        `{"alg":"` + alg + `","ek":"` + encode(append([]byte{ek[0] ^ 1}, ek[1:]...)) + `","enc":"A256GCM"}`,
			"ek ends in zeros":  `{"alg":"` + alg + `","ek":"` + encode(low) + `","enc":"A256GCM"}`,
			"spacing (the AAD)": `{"alg":"` + alg + `", "ek":"` + h.EK + `","enc":"A256GCM"}`,
		} {
			m := good
			m.Protected = encode([]byte(header))
			if _, err := key.Open(m); err == nil {
				t.Errorf("%s: %s was opened", alg, name)
			}
		}
	}
	ec := generate(t, KeyP256)
	m := seal(t, ec.JWK(), []byte("x"))
	text, err := decode(m.Protected, maxHeader)
	if err != nil {
		t.Fatal(err)
	}
	m.Protected = encode(bytes.Replace(text, []byte(`"epk"`), []byte(`"ek":"AA","epk"`), 1))
	if _, err := ec.Open(m); err == nil || errors.Is(err, ErrOpen) {
		t.Errorf("an EC message with ek: %v", err)
	}
}
