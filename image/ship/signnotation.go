package ship

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

const (
	// annotationThumbprints lists the certificates of a signature (Notary Project
	// signature specification, "Signature Manifest").
	annotationThumbprints = "io.cncf.notary.x509chain.thumbprint#S256"

	maxChain = 16 // certificates
)

// notation pushes a signature of the Notary Project, without a timestamp.
func (s *signing) notation(ctx context.Context, root registry.Manifest) (string, error) {
	signer, err := newNotary(s.signer, s.o.Certificates)
	if err != nil {
		return "", err
	}
	target := root.Descriptor()
	target.Annotations = s.o.Annotations
	payload, err := json.Marshal(map[string]ocispec.Descriptor{"targetArtifact": target})
	if err != nil {
		return "", err
	}
	now := time.Now
	if s.o.Time != nil {
		now = s.o.Time
	}
	envelope, err := signature.NewEnvelope(jws.MediaTypeEnvelope)
	if err != nil {
		return "", err
	}
	raw, err := envelope.Sign(&signature.SignRequest{
		Payload: signature.Payload{ContentType: trust.PayloadNotation, Content: payload}, Signer: signer,
		SigningTime: now().Truncate(time.Second), SigningScheme: signature.SigningSchemeX509, SigningAgent: "vouchsafe",
	})
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	if _, err := envelope.Verify(); err != nil { // a key that is elsewhere may be another one than it was
		return "", fmt.Errorf("what was signed: %w", err)
	}
	prints, err := thumbprints(signer.chain)
	if err != nil {
		return "", err
	}
	return s.refer(ctx, root, artifact{
		config: trust.ArtifactNotation, layer: jws.MediaTypeEnvelope, body: raw, annotations: map[string]string{annotationThumbprints: prints},
	})
}

// A notary signs for an envelope with a key that may be elsewhere. It is a
// [signature.Signer].
type notary struct {
	key   crypto.Signer
	chain []*x509.Certificate
	spec  signature.KeySpec
}

// newNotary puts key and certificates together, if they belong together.
func newNotary(key crypto.Signer, certificates []byte) (*notary, error) {
	chain, err := parseChain(certificates)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("the first certificate is not that of the signing key")
	}
	spec, err := signature.ExtractKeySpec(chain[0])
	if err != nil {
		return nil, fmt.Errorf("key and certificates for Notation: %w", err)
	}
	return &notary{key, chain, spec}, nil
}

// KeySpec says what signs, which decides by which algorithm and hash (Notary
// Project signature specification, "Algorithm Selection").
func (n *notary) KeySpec() (signature.KeySpec, error) { return n.spec, nil }

// Sign returns a signature in the form of JWS (RFC 7518 sections 3.4 and 3.5) and
// the certificates.
func (n *notary) Sign(payload []byte) ([]byte, []*x509.Certificate, error) {
	h := n.spec.SignatureAlgorithm().Hash()
	w := h.New()
	_, _ = w.Write(payload) // a hash takes everything
	digest := w.Sum(nil)
	if n.spec.Type == signature.KeyTypeRSA {
		sig, err := n.key.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h})
		return sig, n.chain, err
	}
	der, err := n.key.Sign(rand.Reader, digest, h)
	if err != nil {
		return nil, nil, err
	}
	var sig struct{ R, S *big.Int }
	size := (n.spec.Size + 7) / 8
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 || !fits(sig.R, size) || !fits(sig.S, size) {
		return nil, nil, errors.New("what the key made is no signature of ECDSA")
	}
	return append(sig.R.FillBytes(make([]byte, size)), sig.S.FillBytes(make([]byte, size))...), n.chain, nil
}

func fits(n *big.Int, size int) bool { return n.Sign() > 0 && n.BitLen() <= 8*size }

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" || len(chain) == maxChain {
			return nil, fmt.Errorf("the certificates are not PEM, 1 to %d of them", maxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain)+1, err)
		}
		chain, text = append(chain, c), rest
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return chain, nil
}

func thumbprints(chain []*x509.Certificate) (string, error) {
	var list []string
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		list = append(list, hex.EncodeToString(sum[:]))
	}
	raw, err := json.Marshal(list)
	return string(raw), err
}
