package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RootSHA256 is the fingerprint of the certificate "NVIDIA Device Identity CA",
// in which the chains of all GPUs end. It is the same in the chain of a real
// H100 and in NVIDIA's own verifier (nvtrust, verifier_device_root.pem).
// NVIDIA publishes it with that verifier, not as a document of its own.
const RootSHA256 = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"

// RootName is that of NVIDIA's root in verdicts.
const RootName = "NVIDIA Device Identity CA"

// Limits of a chain. Real ones have five certificates.
const (
	maxChainSize = 64 << 10 // bytes of PEM
	maxChain     = 10
)

const pemCertificate = "CERTIFICATE"

// oidFWID is the extension that holds the key of the GPU and the digest of the
// firmware that the signing key is for (TCG DICE, 2.23.133.5.4.1).
var oidFWID = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}

// parseChain reads a chain in PEM, the signing certificate first.
func parseChain(raw []byte) ([]*x509.Certificate, error) {
	if len(raw) > maxChainSize {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(raw), maxChainSize)
	}
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace(raw); len(rest) > 0; {
		block, tail := pem.Decode(rest)
		if block == nil || block.Type != pemCertificate {
			return nil, errors.New("not certificates in PEM")
		}
		rest = bytes.TrimSpace(tail)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if chain = append(chain, c); len(chain) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	return chain, nil
}

// verifyChain checks all of a chain that neither time nor trust decides: each
// certificate is signed by the next, which may sign certificates, and the last
// by itself. It goes from the root down, which must be a trusted one, so that no key
// is used that nobody vouched for: a stranger's may be one that takes long.
func verifyChain(chain []*x509.Certificate) error {
	for i, c := range slices.Backward(chain) {
		parent := chain[min(i+1, len(chain)-1)]
		if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
			return fmt.Errorf("certificate %d is issued by %q, and %q comes next", i, c.Issuer, parent.Subject)
		}
		if err := c.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("certificate %d (%s) is not signed by the next: %w", i, c.Subject.CommonName, err)
		}
		if j := slices.IndexFunc(c.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return !id.Equal(oidFWID) }); j >= 0 {
			return fmt.Errorf("certificate %d has the critical extension %s, which is not known", i, c.UnhandledCriticalExtensions[j])
		}
		below := i - 1 // authorities between this one and the signing certificate
		if i > 0 && (c.MaxPathLen > 0 || c.MaxPathLenZero) && below > c.MaxPathLen {
			return fmt.Errorf("certificate %d allows %d authorities below it, there are %d", i, c.MaxPathLen, below)
		}
	}
	leaf := chain[0]
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("the signing certificate (%s) is not one for signatures", leaf.Subject.CommonName)
	}
	return nil
}

// firmware reads what the signing certificate says of the GPU: its key, and the
// digest of the firmware.
func firmware(leaf *x509.Certificate) (device, fwid []byte, err error) {
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidFWID) {
			continue
		}
		var v struct {
			Version int
			Device  asn1.RawValue
			FWID    struct {
				Algorithm asn1.ObjectIdentifier
				Digest    []byte
			}
		}
		rest, err := asn1.Unmarshal(e.Value, &v)
		if err != nil || len(rest) != 0 {
			return nil, nil, fmt.Errorf("the signing certificate's firmware identifier is malformed: %w", errors.Join(err, trailing(rest)))
		}
		return v.Device.FullBytes, v.FWID.Digest, nil
	}
	return nil, nil, errors.New("the signing certificate does not say which firmware its key is for")
}

func trailing(rest []byte) error {
	if len(rest) == 0 {
		return nil
	}
	return errors.New("data behind it")
}

// checkTimes returns the certificates that are not valid at a time.
func checkTimes(chain []*x509.Certificate, now time.Time) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range chain {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			out = append(out, c)
		}
	}
	return out
}

// signingKey returns the key of the signing certificate, which is always on
// P-384.
func signingKey(leaf *x509.Certificate) (*ecdsa.PublicKey, error) {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, errors.New("the signing certificate has no key on P-384")
	}
	return key, nil
}

func fingerprint(c *x509.Certificate) string {
	s := sha256.Sum256(c.Raw)
	return hex.EncodeToString(s[:])
}

// Arch is a generation of GPUs, in the spelling of the wire.
type Arch string

// The generations whose reports are read here.
const (
	Hopper    Arch = "HOPPER"
	Blackwell Arch = "BLACKWELL"
)

// archOf tells the generation by the chip that the signing certificate names:
// what the evidence says beside the report is not signed.
func archOf(leaf *x509.Certificate) Arch { return archOfChip(leaf.Subject.CommonName) }

// archOfChip returns "" for a chip that is not known.
func archOfChip(name string) Arch {
	switch {
	case strings.HasPrefix(name, "GH"):
		return Hopper
	case strings.HasPrefix(name, "GB"):
		return Blackwell
	}
	return ""
}
