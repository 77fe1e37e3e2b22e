package nvidia

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated authority and of simulated GPUs.
const (
	fileRootKey = "root.key"
	fileRoot    = "root.pem" // what [SimulatedRoot] takes
	fileLaunch  = "launch.json"
)

// clockSlack makes certificates start early, for guests and brokers whose
// clocks differ. They never end, as NVIDIA's do not.
const clockSlack = time.Hour

var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// vendor is a simulated device identity authority.
type vendor struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// CreateVendor makes a simulated device identity authority in a directory that
// must not hold one yet: its key, and root.pem, its certificate, which
// [SimulatedRoot] takes. The key file can make evidence that every verifier
// trusts which names this root; it has mode 0600.
func CreateVendor(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, fileRoot)); err == nil {
		return fmt.Errorf("create vendor: %s: %w", filepath.Join(dir, fileRoot), fs.ErrExist)
	}
	v, err := newVendor(time.Now())
	if err == nil {
		err = v.write(dir)
	}
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	return nil
}

func newVendor(now time.Time) (*vendor, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	v := &vendor{key: key}
	v.cert, err = v.issue(authority("Simulated Device Identity CA", now), nil, key.Public())
	return v, err
}

// authority is the template of a certificate that signs others.
func authority(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"Simulated"}},
		NotBefore: now.Add(-clockSlack), NotAfter: never,
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
}

// issue signs a certificate with the vendor's key, under the given parent or
// under itself.
func (v *vendor) issue(template, parent *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	return issue(template, parent, key, v.key)
}

func issue(template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.SignatureAlgorithm = x509.ECDSAWithSHA384
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// write puts the vendor into a directory. The certificate comes last: a
// directory without one holds no vendor.
func (v *vendor) write(dir string) error {
	key, err := simdir.Key(fileRootKey, v.key)
	if err != nil {
		return err
	}
	return simdir.Write(dir, key, simdir.File{Name: fileRoot, Data: pemOf(v.cert), Mode: simdir.Public})
}

func openVendor(dir string) (*vendor, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fileRoot))
	if err != nil {
		return nil, err
	}
	cert, err := parseRoot(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileRoot, err)
	}
	key, err := simdir.ReadECDSA(dir, fileRootKey)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("key and certificate of the vendor do not belong together")
	}
	return &vendor{key: key, cert: cert}, nil
}

func pemOf(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pemBlock(c.Raw)...)
	}
	return out
}

func pemBlock(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

// chipNames are the names in the certificates of a generation's GPUs: that of
// the chip, and that of the firmware's key.
func chipNames(a Arch) (chip, firmware string) {
	if a == Blackwell {
		return "GB100 A01 GSP BROM", "GB100 A01 GSP FMC LF"
	}
	return "GH100 A01 GSP BROM", "GH100 A01 GSP FMC LF"
}

// certify makes a GPU with a key for its firmware: a chain of three, the
// signing certificate first.
func (v *vendor) certify(a Arch, fwid []byte, now time.Time) (*ecdsa.PrivateKey, []*x509.Certificate, error) {
	chipName, firmwareName := chipNames(a)
	chipKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	chip, err := v.issue(authority(chipName, now), v.cert, chipKey.Public())
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	extension, err := fwidExtension(chip.RawSubjectPublicKeyInfo, fwid)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := issue(&x509.Certificate{
		Subject:   pkix.Name{CommonName: firmwareName, Organization: []string{"Simulated"}},
		NotBefore: now.Add(-clockSlack), NotAfter: never,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: []pkix.Extension{extension},
	}, chip, key.Public(), chipKey)
	if err != nil {
		return nil, nil, err
	}
	return key, []*x509.Certificate{leaf, chip, v.cert}, nil
}

func fwidExtension(device, fwid []byte) (pkix.Extension, error) {
	type digest struct {
		Algorithm asn1.ObjectIdentifier
		Digest    []byte
	}
	value, err := asn1.Marshal(struct {
		Version int
		Device  asn1.RawValue
		FWID    digest
	}{1, asn1.RawValue{FullBytes: device}, digest{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, fwid}})
	return pkix.Extension{Id: oidFWID, Value: value}, err
}
