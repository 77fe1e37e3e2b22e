package ek

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// The policies are what a TPM would compute of the commands that the profile
// names (B.6; TPM 2.0 Library, Part 3: PolicySecret, PolicyAuthorizeNV, PolicyOR).
func TestPolicies(t *testing.T) {
	digest := func(h crypto.Hash, parts ...[]byte) []byte {
		w := h.New()
		for _, p := range parts {
			w.Write(p)
		}
		return w.Sum(nil)
	}
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for _, tt := range []struct {
		alg   tpm2.TPMAlgID
		hash  crypto.Hash
		index uint32 // of the owner's policy (I-1 to I-3)
	}{{tpm2.TPMAlgSHA256, crypto.SHA256, 0x01c07f01}, {tpm2.TPMAlgSHA384, crypto.SHA384, 0x01c07f02}, {tpm2.TPMAlgSHA512, crypto.SHA512, 0x01c07f03}} {
		zero := make([]byte, tt.hash.Size())
		secret := digest(tt.hash, digest(tt.hash, zero, u32(uint32(tpm2.TPMCCPolicySecret)), u32(uint32(tpm2.TPMRHEndorsement))))
		index := tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(tt.index), NameAlg: tt.alg, AuthPolicy: tpm2.TPM2BDigest{Buffer: secret}, DataSize: uint16(2 + tt.hash.Size()),
			Attributes: tpm2.TPMANV{PolicyWrite: true, WriteAll: true, PPRead: true, OwnerRead: true, AuthRead: true, PolicyRead: true, NoDA: true, Written: true},
		}
		name, err := tpm2.NVName(&index)
		if err != nil {
			t.Fatal(err)
		}
		authorize := digest(tt.hash, zero, u32(uint32(tpm2.TPMCCPolicyAuthorizeNV)), name.Buffer)
		either := digest(tt.hash, zero, u32(uint32(tpm2.TPMCCPolicyOR)), secret, authorize)
		for _, k := range Templates() {
			want := secret
			if k.high {
				want = either
			}
			if k.hash == tt.alg && !bytes.Equal(k.Public().AuthPolicy.Buffer, want) {
				t.Errorf("%s has the policy %x, want %x", k.Name, k.Public().AuthPolicy.Buffer, want)
			}
		}
	}
}

// The library knows two of the templates.
func TestTemplates(t *testing.T) {
	seen := map[uint32]bool{}
	for _, k := range Templates() {
		for _, index := range append([]uint32{k.Index}, k.Overrides...) {
			if seen[index] {
				t.Errorf("%s has the NV index %#x of another", k.Name, index)
			}
			seen[index] = true
		}
		if found, err := Find(k.Name); err != nil || found.Index != k.Index {
			t.Errorf("%s: %v", k.Name, err)
		}
		want := map[string]tpm2.TPMTPublic{"L-1": tpm2.RSAEKTemplate, "L-2": tpm2.ECCEKTemplate}
		if w, ok := want[k.Name]; ok && !bytes.Equal(tpm2.Marshal(w), tpm2.Marshal(k.Public())) {
			t.Errorf("%s is not the library's", k.Name)
		}
	}
	for _, name := range []string{"", "l-1", "H-5"} {
		if _, err := Find(name); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "L-1, L-2") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func certificates(t testing.TB) map[string]*x509.Certificate {
	t.Helper()
	out := map[string]*x509.Certificate{"nothing that is known": {}}
	for name, bits := range map[string]int{"RSA 2048": 2048, "RSA 3072": 3072} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &x509.Certificate{PublicKey: key.Public()}
	}
	odd := *out["RSA 2048"].PublicKey.(*rsa.PublicKey)
	odd.E = 3
	out["another exponent"] = &x509.Certificate{PublicKey: &odd}
	for name, curve := range map[string]elliptic.Curve{"ECC P-256": elliptic.P256(), "ECC P-384": elliptic.P384(), "ECC P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &x509.Certificate{PublicKey: key.Public()}
	}
	return out
}

// A certificate is of a template's kind or refused.
func TestEncapsulation(t *testing.T) {
	for what, c := range certificates(t) {
		for _, k := range Templates() {
			key, err := k.Encapsulation(c)
			if what != k.Kind() {
				if !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrUnknown) {
					t.Errorf("a key of %s is taken as %s: %v", what, k.Name, err)
				}
				continue
			}
			if err != nil || key.NameAlg() != k.hash {
				t.Errorf("a key of %s as %s: %v", what, k.Name, err)
			}
		}
	}
}

// What a TPM says that it made is the host's word where the TPM is virtual.
func FuzzCertified(f *testing.F) {
	all := certificates(f)
	for _, k := range Templates() {
		f.Add(tpm2.Marshal(k.Public()))
	}
	f.Add(tpm2.Marshal(tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		made, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
		if err != nil {
			return
		}
		for _, k := range Templates() {
			for what, c := range all {
				if err := k.Certified(c, made); !errors.Is(err, ErrMismatch) && made.Type == k.Public().Type && err == nil {
					t.Errorf("%x is the key of a certificate of %s", raw, what)
				}
			}
		}
	})
}
