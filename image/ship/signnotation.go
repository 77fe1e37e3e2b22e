package ship

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
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
	local, err := notationSigner(s.signer, s.o.Certificates)
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
		Payload: signature.Payload{ContentType: trust.PayloadNotation, Content: payload}, Signer: local,
		SigningTime: now().Truncate(time.Second), SigningScheme: signature.SigningSchemeX509, SigningAgent: "vouchsafe",
	})
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	chain, err := local.CertificateChain()
	if err != nil {
		return "", err
	}
	prints, err := thumbprints(chain)
	if err != nil {
		return "", err
	}
	return s.refer(ctx, root, artifact{
		config: trust.ArtifactNotation, layer: jws.MediaTypeEnvelope, body: raw, annotations: map[string]string{annotationThumbprints: prints},
	})
}

// notationSigner puts key and certificates together, if they belong together.
func notationSigner(key crypto.Signer, certificates []byte) (signature.LocalSigner, error) {
	switch key.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return nil, errors.New("the form notation needs a private key at hand, RSA or ECDSA: one that stays in a token signs the other forms")
	}
	chain, err := parseChain(certificates)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, errors.New("the first certificate is not that of the signing key")
	}
	local, err := signature.NewLocalSigner(chain, key)
	if err != nil {
		return nil, fmt.Errorf("key and certificates for Notation: %w", err)
	}
	return local, nil
}

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
