package trust

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/sigstore"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Sigstore bundles of version 0.3 (sigstore protobuf-specs) as cosign 3 writes
// them, made with a key or with a certificate. Log entries and timestamps count
// where the policy names whom to believe; where it names a key and no more, they
// are not looked at.
const (
	// MediaTypeEnvelope is that of an attestation without a bundle (DSSE).
	MediaTypeEnvelope  = "application/vnd.dsse.envelope.v1+json"
	MediaTypeBundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	mediaTypeBundleOld = "application/vnd.dev.sigstore.bundle+json;version=0.3"

	// PredicateSign marks a statement that signs an image. A key also signs
	// attestations, for example bills of materials of images that nobody meant
	// to release: those do not count as signatures.
	PredicateSign = "https://sigstore.dev/cosign/sign/v1"

	// PayloadTypeInToto is what an envelope calls an in-toto statement.
	PayloadTypeInToto = "application/vnd.in-toto+json"

	maxBundle   = 2 << 20 // bytes of one that is held
	maxBundles  = 8 << 20 // bytes of all of one place beside one manifest
	maxSubjects = 256
)

// PreAuthentication returns the bytes that DSSE signs (DSSE protocol, PAE).
func PreAuthentication(payloadType string, payload []byte) []byte {
	return append(preamble(payloadType, int64(len(payload))), payload...)
}

// preamble is what stands before a payload of n bytes there.
func preamble(payloadType string, n int64) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, n)
}

// ParseBundle reads a bundle that lies beside the manifest raw, whose digest is
// d. It verifies nothing.
func ParseBundle(bundle []byte, d digest.Digest, raw []byte) (Signature, error) {
	s, err := parseBundle(bundle, d, raw)
	if err != nil {
		return Signature{}, fmt.Errorf("sigstore bundle: %w", err)
	}
	return s, nil
}

func parseBundle(bundle []byte, d digest.Digest, raw []byte) (Signature, error) {
	if len(bundle) > maxBundle {
		return Signature{}, fmt.Errorf("%d bytes, at most %d are read", len(bundle), maxBundle)
	}
	doc, err := strictjson.Parse(bundle)
	if err != nil {
		return Signature{}, err
	}
	var mediaType string
	if _, err := doc.Take("mediaType", &mediaType); err != nil {
		return Signature{}, err
	}
	if mediaType != MediaTypeBundle && mediaType != mediaTypeBundleOld {
		return Signature{}, fmt.Errorf("media type %.80q is not supported: version 0.3 is", mediaType)
	}
	material, err := child(doc, "verificationMaterial")
	if err != nil {
		return Signature{}, err
	}
	m, hint, _, err := sigstore.TakeMaterial(material)
	if err != nil {
		return Signature{}, err
	}
	envelope, err := doc.Object("dsseEnvelope")
	if err != nil {
		return Signature{}, err
	}
	message, err := doc.Object("messageSignature")
	if err != nil {
		return Signature{}, err
	}
	if err := doc.Done(); err != nil {
		return Signature{}, err
	}
	var s Signature
	switch {
	case (envelope == nil) == (message == nil):
		return s, errors.New("exactly one of dsseEnvelope and messageSignature is needed")
	case envelope != nil:
		s, err = parseEnvelope(envelope)
	default:
		s, err = parseMessage(message, raw)
		s.signed = d
	}
	s.KeyHint, s.material = keyName(hint), m
	return s, err
}

// KeyHint is what cosign writes into a bundle beside a signature by a key: the
// SHA-256 of its SubjectPublicKeyInfo, in base64.
func KeyHint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum256(der)), nil
}

// keyName spells such a hint as a fingerprint, which people can compare with
// those of a policy. Another hint stays as it is.
func keyName(hint string) string {
	if sum, err := base64.StdEncoding.DecodeString(hint); err == nil && len(sum) == sha256.Size {
		return "sha256:" + hex.EncodeToString(sum)
	}
	return hint
}

// ParseEnvelope reads a DSSE envelope. It verifies nothing.
func ParseEnvelope(raw []byte) (Signature, error) {
	if len(raw) > maxBundle {
		return Signature{}, fmt.Errorf("envelope: %d bytes, at most %d are read", len(raw), maxBundle)
	}
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return Signature{}, fmt.Errorf("envelope: %w", err)
	}
	s, err := parseEnvelope(doc)
	if err != nil {
		return Signature{}, fmt.Errorf("envelope: %w", err)
	}
	return s, nil
}

// parseEnvelope reads a DSSE envelope with one signature (DSSE envelope.md).
func parseEnvelope(doc *strictjson.Object) (Signature, error) {
	s := Signature{Form: FormDSSE, Origin: OriginReferrers}
	var kind string
	var items []rawObject
	if _, err := doc.Take("payloadType", &kind); err != nil {
		return s, err
	}
	if kind != PayloadTypeInToto {
		return s, fmt.Errorf("payload type %.80q is not supported", kind)
	}
	payload, err := takeBytes(doc, "payload")
	if err != nil {
		return s, err
	}
	if _, err := doc.Take("signatures", &items); err != nil {
		return s, err
	}
	if len(items) != 1 {
		return s, fmt.Errorf("%d signatures in an envelope that has exactly one", len(items))
	}
	sig, err := strictjson.Parse(items[0])
	if err != nil {
		return s, err
	}
	var keyID string // unsigned, and of no use
	if _, err := sig.Take("keyid", &keyID); err != nil {
		return s, err
	}
	if s.Sig, err = takeBytes(sig, "sig"); err != nil {
		return s, err
	}
	s.Payload = payload
	return s, errors.Join(sig.Done(), doc.Done())
}

// parseMessage reads a signature over the manifest's own bytes.
func parseMessage(doc *strictjson.Object, raw []byte) (Signature, error) {
	s := Signature{Form: FormMessage, Origin: OriginReferrers, Payload: raw}
	var err error
	if s.Sig, err = takeBytes(doc, "signature"); err != nil {
		return s, err
	}
	sum, err := child(doc, "messageDigest")
	if err != nil {
		return s, err
	}
	var algorithm string
	if _, err := sum.Take("algorithm", &algorithm); err != nil {
		return s, err
	}
	seen, err := takeBytes(sum, "digest")
	if err != nil {
		return s, err
	}
	hashes := map[string]func([]byte) []byte{"SHA2_256": sum256, "SHA2_384": sum384, "SHA2_512": sum512}
	hash, ok := hashes[algorithm]
	if !ok {
		return s, fmt.Errorf("digest algorithm %.40q is not supported", algorithm)
	}
	if !bytes.Equal(seen, hash(raw)) {
		return s, errors.New("it signs something else than the manifest that it lies beside")
	}
	return s, errors.Join(sum.Done(), doc.Done())
}

// takeBytes takes a member that must be there, in base64.
func takeBytes(doc *strictjson.Object, name string) ([]byte, error) {
	var text string
	if _, err := doc.Take(name, &text); err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("member %q is not base64", name)
	}
	return b, nil
}
