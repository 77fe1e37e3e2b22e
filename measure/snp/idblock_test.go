package snp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"slices"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// The blocks that sev-snp-measure and the sev crate publish. Their keys are not
// published with them, so that signatures are checked below with keys of our own.
func TestIDBlockVectors(t *testing.T) {
	var one struct {
		Digest []byte `json:"launch_digest_b64"`
		Block  []byte `json:"id_block_b64"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "sev-snp-measure", "expected_id_block.json"), &one); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Two struct {
			Digest string `json:"launch_digest"`
			Block  []byte `json:"id_block_b64"`
		} `json:"id_block"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "virtee-sev", "expected.json"), &file); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]struct{ digest, block []byte }{
		"sev-snp-measure": {one.Digest, one.Block}, "sev crate": {fromHex(t, file.Two.Digest), file.Two.Block},
	} {
		got := IDBlock{Measurement: [48]byte(v.digest), Policy: 0x30000}.Marshal()
		if !bytes.Equal(got, v.block) || len(got) != IDBlockSize {
			t.Errorf("%s: %x, want %x", name, got, v.block)
		}
	}
}

func idKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// reversed reads a little-endian number.
func reversed(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// checkSignature verifies a signature by a key, both as they lie in the
// structure.
func checkSignature(t *testing.T, signature, key, message []byte) bool {
	t.Helper()
	if !bytes.Equal(key[:4], []byte{2, 0, 0, 0}) || !bytes.Equal(key[148:], make([]byte, 880)) || !bytes.Equal(signature[144:], make([]byte, 368)) {
		t.Errorf("the form of key or signature: %x, %x", key[:4], signature[144:])
	}
	public := &ecdsa.PublicKey{Curve: elliptic.P384(), X: reversed(key[4:76]), Y: reversed(key[76:148])} //nolint:staticcheck // from the parts
	digest := sha512.Sum384(message)
	return ecdsa.Verify(public, digest[:], reversed(signature[:72]), reversed(signature[72:144]))
}

func TestIDBlockSigned(t *testing.T) {
	id, author := idKey(t, elliptic.P384()), idKey(t, elliptic.P384())
	b := IDBlock{Measurement: [48]byte{1}, FamilyID: [16]byte{2}, ImageID: [16]byte{3}, Version: 4, Policy: DefaultPolicy}
	auth, err := b.Sign(id, author)
	if err != nil || len(auth) != IDAuthSize {
		t.Fatalf("%d bytes, %v", len(auth), err)
	}
	if !bytes.Equal(auth[:64], append([]byte{1, 0, 0, 0, 1}, make([]byte, 59)...)) || !bytes.Equal(auth[0xc84:], make([]byte, 892)) {
		t.Errorf("%x ... %x", auth[:64], auth[0xc84:])
	}
	key, above := auth[0x240:0x644], auth[0x880:0xc84]
	if !checkSignature(t, auth[0x40:0x240], key, b.Marshal()) || !checkSignature(t, auth[0x680:0x880], above, key) {
		t.Error("the signatures are wrong")
	}
	for signer, raw := range map[*ecdsa.PrivateKey][]byte{id: key, author: above} {
		digest, err := KeyDigest(signer.Public())
		if err != nil || digest != sha512.Sum384(raw) {
			t.Errorf("digest %x, %v", digest, err)
		}
	}
	other := b
	other.Version++
	if checkSignature(t, auth[0x40:0x240], key, other.Marshal()) {
		t.Error("the signature is good for another block")
	}

	alone, err := b.Sign(id, nil)
	if err != nil || !bytes.Equal(alone[4:64], make([]byte, 60)) || !bytes.Equal(alone[0x680:], make([]byte, IDAuthSize-0x680)) {
		t.Errorf("without an author key: %v", err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][2]crypto.Signer{
		"no key": {nil, author}, "P-256": {idKey(t, elliptic.P256()), nil}, "Ed25519": {ed, nil}, "author P-256": {id, idKey(t, elliptic.P256())},
	} {
		if _, err := b.Sign(keys[0], keys[1]); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
