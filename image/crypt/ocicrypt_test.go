package crypt

import (
	"bytes"
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
		annotations, err := Annotations(pub, packet)
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
		opts, err := agent.UnwrapKey(nil, packets[0])
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
