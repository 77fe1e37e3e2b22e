package crypt

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"io"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// attestationAgent is a key provider of ocicrypt that lives in this process,
// over our own packets: what a guest of the field has behind a socket.
type attestationAgent struct{ kek secret.Bytes }

func (a attestationAgent) WrapKeys(_ *config.EncryptConfig, opts []byte) ([]byte, error) {
	return SealPacket(a.kek, kid, secret.Copy(opts))
}

func (a attestationAgent) UnwrapKey(_ *config.DecryptConfig, annotation []byte) ([]byte, error) {
	p, err := ParsePacket(annotation)
	if err != nil {
		return nil, err
	}
	if p.KID != kid {
		return nil, errors.New("no such key")
	}
	s, err := p.Open(a.kek)
	return s.Reveal(), err
}

func (attestationAgent) GetAnnotationID() string                      { return AnnotationPackets }
func (attestationAgent) NoPossibleKeys(map[string][][]byte) bool      { return false }
func (attestationAgent) GetPrivateKeys(map[string][][]byte) [][]byte  { return [][]byte{{1}} }
func (attestationAgent) GetKeyIdsFromPacket(string) ([]uint64, error) { return nil, nil }
func (attestationAgent) GetRecipients(string) ([]string, error)       { return nil, nil }

// A whole layer, annotations and all, through ocicrypt in both directions.
func TestLayersOfOcicrypt(t *testing.T) {
	agent := attestationAgent{kek: secret.Random(32)}
	ocicrypt.RegisterKeyWrapper("provider.attestation-agent", agent)
	plain := randomBytes(70_001)

	t.Run("ours read by ocicrypt", func(t *testing.T) {
		ct, pub, priv := encrypt(t, plain)
		doc, err := priv.Marshal()
		must(t, err)
		packet, err := SealPacket(agent.kek, kid, doc)
		must(t, err)
		annotations, err := Annotations(pub, WrappedKey{SchemeProvider, packet})
		must(t, err)
		r, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{}, bytes.NewReader(ct), ocispec.Descriptor{Annotations: annotations}, false)
		must(t, err)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("ocicrypt reads something else: %v", err)
		}
	})

	t.Run("ocicrypt's read by us", func(t *testing.T) {
		r, finish, err := ocicrypt.EncryptLayer(&config.EncryptConfig{}, bytes.NewReader(plain), ocispec.Descriptor{Digest: digest.FromBytes(plain)})
		must(t, err)
		ct, err := io.ReadAll(r)
		must(t, err)
		annotations, err := finish()
		must(t, err)
		pub, packets, err := ParseAnnotations(annotations)
		must(t, err)
		opts, err := agent.UnwrapKey(nil, packets[0].Packet)
		must(t, err)
		priv, err := ParsePrivate(secret.New(opts))
		must(t, err)
		if priv.Digest != digest.FromBytes(plain) {
			t.Errorf("digest %s", priv.Digest)
		}
		got, err := decrypt(bytes.NewReader(ct), pub, priv)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("we read something else: %v", err)
		}
	})
}

// The packets of every kind that does without a key provider, in both
// directions and all at once: ocicrypt's layer is opened by each of its readers.
func TestPacketsOfOcicrypt(t *testing.T) {
	a := newPair(t, rsaPairs()[0])
	curve := ecPair(t, elliptic.P256())
	plain := randomBytes(3000)
	rings := map[string]*Keyring{"RSA": keyring(t, a.pkcs8), "ECDSA": keyring(t, curve.pkcs8)}

	t.Run("theirs read by us", func(t *testing.T) {
		t.Setenv("OCICRYPT_OAEP_HASHALG", "sha1") // what 2048 bits have room for
		ec := &config.EncryptConfig{Parameters: map[string][][]byte{
			"pubkeys": {curve.public, a.public}, "x509s": {a.cert}, "pkcs11-pubkeys": {a.public},
		}}
		r, finish, err := ocicrypt.EncryptLayer(ec, bytes.NewReader(plain), ocispec.Descriptor{Digest: digest.FromBytes(plain)})
		must(t, err)
		ct, err := io.ReadAll(r)
		must(t, err)
		annotations, err := finish()
		must(t, err)
		pub, keys, err := ParseAnnotations(annotations)
		must(t, err)
		seen := 0
		for _, w := range keys {
			if w.Scheme.IsProvider() { // of the other tests: ocicrypt's table is global
				continue
			}
			for name, ring := range rings {
				doc, err := ring.Unwrap(t.Context(), w)
				if name == "ECDSA" && w.Scheme != SchemeJWE {
					continue
				}
				must(t, err)
				priv, err := ParsePrivate(doc)
				must(t, err)
				if got, err := decrypt(bytes.NewReader(ct), pub, priv); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s by %s: %v", w.Scheme, name, err)
				}
				seen++
			}
		}
		if seen != 4 { // JWE twice, PKCS#7, PKCS#11
			t.Errorf("%d packets were read", seen)
		}
	})

	for name, c := range map[string]struct {
		scheme Scheme
		doc    []byte
		dc     map[string][][]byte
	}{
		"JWE, RSA":   {SchemeJWE, a.public, map[string][][]byte{"privkeys": {a.pkcs8.Reveal()}, "privkeys-passwords": {nil}}},
		"JWE, ECDSA": {SchemeJWE, curve.public, map[string][][]byte{"privkeys": {curve.pkcs8.Reveal()}, "privkeys-passwords": {nil}}},
		"PKCS#7":     {SchemePKCS7, a.cert, map[string][][]byte{"privkeys": {a.pkcs8.Reveal()}, "privkeys-passwords": {nil}, "x509s": {a.cert}}},
	} {
		t.Run("ours read by them: "+name, func(t *testing.T) {
			r, err := NewRecipient(c.scheme, c.doc)
			must(t, err)
			ct, pub, priv := encrypt(t, plain)
			doc, err := priv.Marshal()
			must(t, err)
			w, err := r.Wrap(doc)
			must(t, err)
			annotations, err := Annotations(pub, w)
			must(t, err)
			out, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{Parameters: c.dc}, bytes.NewReader(ct), ocispec.Descriptor{Annotations: annotations}, false)
			must(t, err)
			if got, err := io.ReadAll(out); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("ocicrypt reads something else: %v", err)
			}
		})
	}
}
