package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated manufacturer and of a simulated guest.
const (
	fileCAKey  = "ca.key"
	fileBundle = "root.pem" // what [Authority] takes
	fileAKKey  = "ak.key"
	fileChain  = "chain.pem" // the certificate of the AK
	fileAK     = "ak.pem"    // its public key, as [EnrolledKeys] takes it
	fileLog    = "eventlog.bin"
	fileLaunch = "launch.json"
)

// Lifetimes of what the simulated manufacturer issues. Everything starts an
// hour early, for guests and brokers whose clocks differ.
const (
	vendorLife = 25 * 365 * 24 * time.Hour
	keyLife    = 7 * 365 * 24 * time.Hour
	clockSlack = time.Hour
)

// vendor is a simulated manufacturer of TPMs, who also certifies their AKs.
type vendor struct {
	key  crypto.Signer
	cert *x509.Certificate
	crl  *x509.RevocationList
}

// CreateVendor makes a simulated manufacturer in a directory that must not hold
// one yet: a CA, an empty revocation list, and root.pem, the bundle that
// [VerifierConfig.UnsafeSimulatedRoots] takes. The key file can make evidence
// that every verifier trusts which names this root; it has mode 0600.
func CreateVendor(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, fileBundle)); err == nil {
		return fmt.Errorf("create vendor: %s: %w", filepath.Join(dir, fileBundle), fs.ErrExist)
	}
	v, err := newVendor(time.Now())
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	key, err := simdir.Key(fileCAKey, v.key)
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	// The bundle comes last: a directory without one holds no vendor.
	if err := simdir.Write(dir, key, simdir.File{Name: fileBundle, Data: v.bundle(), Mode: simdir.Public}); err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	return nil
}

func newVendor(now time.Time) (*vendor, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	mark := make([]byte, 8)
	rand.Read(mark)
	v := &vendor{key: key}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-clockSlack), NotAfter: now.Add(vendorLife),
		Subject:  pkix.Name{Organization: []string{"Vouchsafe"}, CommonName: "Simulated TPM CA", SerialNumber: simulatedMark + hex.EncodeToString(mark)},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	if v.cert, err = issue(ca, ca, key.Public(), key); err != nil {
		return nil, err
	}
	return v, v.revoke(now)
}

func issue(template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// revoke makes a new revocation list with the given certificates in it.
func (v *vendor) revoke(now time.Time, certs ...*x509.Certificate) error {
	list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-clockSlack), NextUpdate: now.Add(vendorLife)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, v.cert, v.key)
	if err != nil {
		return fmt.Errorf("sign revocation list: %w", err)
	}
	v.crl, err = x509.ParseRevocationList(der)
	return err
}

// bundle returns root.pem.
func (v *vendor) bundle() []byte {
	out := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: v.cert.Raw})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: v.crl.Raw})...)
}

// openVendor reads what is needed to make guests.
func openVendor(dir string) (*vendor, error) {
	bundle, err := os.ReadFile(filepath.Join(dir, fileBundle))
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	a, err := newAuthority(Authority{Name: dir, Bundle: bundle}, true)
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	key, err := simdir.ReadECDSA(dir, fileCAKey)
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	return &vendor{key: key, cert: a.certificates[0]}, nil
}

// certify issues the certificate of a key of a TPM for a purpose.
func (v *vendor) certify(key crypto.PublicKey, purpose asn1.ObjectIdentifier, now time.Time) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	rand.Read(serial)
	return issue(&x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), NotBefore: now.Add(-clockSlack), NotAfter: now.Add(keyLife),
		Subject:  pkix.Name{Organization: []string{"Vouchsafe"}, CommonName: "Simulated TPM"},
		KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{purpose},
	}, v.cert, key, v.key)
}
