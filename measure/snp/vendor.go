package snp

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
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

// Files of a simulated vendor.
const (
	fileARKKey  = "ark.key"
	fileASKKey  = "ask.key"
	fileASVKKey = "asvk.key"
	fileBundle  = "root.pem" // what [SimulatedRoot] takes
)

// Lifetimes of what the simulated vendor issues. Everything starts an hour
// early, for guests and brokers whose clocks differ.
const (
	vendorLife = 25 * 365 * 24 * time.Hour
	vcekLife   = 7 * 365 * 24 * time.Hour
	vlekLife   = 365 * 24 * time.Hour
	clockSlack = time.Hour
)

// vendor is a simulated AMD for one generation.
type vendor struct {
	generation Generation
	// Keys of ARK, ASK and ASVK. Those that are not needed are nil: the ARK's
	// where only guests are made, the ASVK's where none is lent.
	arkKey, askKey, asvkKey crypto.Signer
	ark, ask, asvk          *x509.Certificate
	crl                     *x509.RevocationList
}

// VendorOptions say what a simulated vendor is like.
type VendorOptions struct {
	Product string    // generation: "Milan", "Genoa" or "Turin"
	Lends   bool      // it also has a key (ASVK) that signs for lent keys (VLEK)
	Issued  time.Time // when its certificates and its list begin; zero means now
}

// CreateVendor makes a simulated vendor for a generation ("Milan", "Genoa" or
// "Turin") that lends no keys: see [CreateVendorWith].
func CreateVendor(dir, product string) error {
	return CreateVendorWith(dir, VendorOptions{Product: product})
}

// CreateVendorWith makes a simulated vendor in a directory that must not hold
// one yet: a root (ARK) and signing keys (ASK, ASVK) of 4096-bit RSA, an empty
// revocation list, and root.pem, the bundle that [SimulatedRoot] takes. It
// takes seconds. The key files can make evidence that every verifier trusts
// which names this root; they have mode 0600.
func CreateVendorWith(dir string, o VendorOptions) error {
	g, err := ParseGeneration(o.Product)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, fileBundle)); err == nil {
		return fmt.Errorf("create vendor: %s: %w", filepath.Join(dir, fileBundle), fs.ErrExist)
	}
	keys := make([]crypto.Signer, 3)
	for i := range keys {
		if i == 2 && !o.Lends {
			break
		}
		if keys[i], err = rsa.GenerateKey(rand.Reader, 4096); err != nil {
			return fmt.Errorf("create vendor: %w", err)
		}
	}
	if o.Issued.IsZero() {
		o.Issued = time.Now()
	}
	v, err := newVendor(g, keys[0], keys[1], keys[2], o.Issued)
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	if err := v.write(dir); err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	return nil
}

// write puts the vendor into a directory. The bundle comes last: a directory
// without one holds no vendor.
func (v *vendor) write(dir string) error {
	var files []simdir.File
	for _, k := range []struct {
		name string
		key  crypto.Signer
	}{{fileARKKey, v.arkKey}, {fileASKKey, v.askKey}, {fileASVKKey, v.asvkKey}} {
		if k.key == nil {
			continue
		}
		f, err := simdir.Key(k.name, k.key)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	return simdir.Write(dir, append(files, simdir.File{Name: fileBundle, Data: v.bundle(), Mode: simdir.Public})...)
}

// newVendor issues the certificates and the first, empty, revocation list. The
// key of the ASVK may be nil.
func newVendor(g Generation, arkKey, askKey, asvkKey crypto.Signer, now time.Time) (*vendor, error) {
	v := &vendor{generation: g, arkKey: arkKey, askKey: askKey, asvkKey: asvkKey}
	mark := make([]byte, 8)
	rand.Read(mark)
	ark := v.authority("ARK-"+string(g), 1, hex.EncodeToString(mark), now)
	ark.KeyUsage |= x509.KeyUsageCRLSign
	var err error
	if v.ark, err = issue(ark, ark, arkKey.Public(), arkKey); err != nil {
		return nil, err
	}
	ask := v.authority(signerName(VCEK, g), 2, hex.EncodeToString(mark), now)
	if v.ask, err = issue(ask, v.ark, askKey.Public(), arkKey); err != nil {
		return nil, err
	}
	if asvkKey != nil {
		asvk := v.authority(signerName(VLEK, g), 3, hex.EncodeToString(mark), now)
		if v.asvk, err = issue(asvk, v.ark, asvkKey.Public(), arkKey); err != nil {
			return nil, err
		}
	}
	return v, v.revoke(now)
}

// authority is the template of ARK and ASK, in the form that AMD's KDS
// specification (57230) gives them. The serial number in the name marks it as
// simulated for everyone who looks.
func (v *vendor) authority(name string, serial int64, mark string, now time.Time) *x509.Certificate {
	subject := amdName(name)
	subject.SerialNumber = "simulated-" + mark
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject,
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(vendorLife),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		KeyUsage:           x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		CRLDistributionPoints: []string{fmt.Sprintf("https://kdsintf.amd.com/vcek/v1/%s/crl", v.generation)},
	}
}

// amdName is a name as in AMD's certificates; verifiers compare it.
func amdName(cn string) pkix.Name {
	return pkix.Name{
		OrganizationalUnit: []string{"Engineering"}, Country: []string{"US"}, Locality: []string{"Santa Clara"},
		Province: []string{"CA"}, Organization: []string{"Advanced Micro Devices"}, CommonName: cn,
	}
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
	list := &x509.RevocationList{
		Number: big.NewInt(now.Unix()), SignatureAlgorithm: x509.SHA384WithRSAPSS,
		ThisUpdate: now.Add(-clockSlack), NextUpdate: now.Add(vendorLife),
	}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, v.ark, v.arkKey)
	if err != nil {
		return fmt.Errorf("sign revocation list: %w", err)
	}
	v.crl, err = x509.ParseRevocationList(der)
	return err
}

// bundle returns root.pem.
func (v *vendor) bundle() []byte {
	var out []byte
	for _, c := range []*x509.Certificate{v.ark, v.ask, v.asvk} {
		if c != nil {
			out = append(out, encodeCertificate(c)...)
		}
	}
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: v.crl.Raw})...)
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})
}

// openVendor reads what is needed to make guests.
func openVendor(dir string) (*vendor, error) {
	bundle, err := os.ReadFile(filepath.Join(dir, fileBundle))
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	r, err := parseBundle(dir, bundle)
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	v := &vendor{generation: r.generation, ark: r.ark, ask: r.ask, asvk: r.asvk, crl: r.crl}
	if v.askKey, err = simdir.ReadKey[crypto.Signer](dir, fileASKKey); err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	if v.asvk != nil {
		if v.asvkKey, err = simdir.ReadKey[crypto.Signer](dir, fileASVKKey); err != nil {
			return nil, fmt.Errorf("open vendor: %w", err)
		}
	}
	return v, nil
}

// RevokeSigner makes a vendor take back the key that signs for a kind of keys,
// [VCEK] or [VLEK]: its root.pem is written again with a list that says so.
func RevokeSigner(dir string, k SigningKey) error {
	v, err := openVendor(dir)
	if err != nil {
		return err
	}
	signer := v.ask
	if k == VLEK {
		signer = v.asvk
	}
	if signer == nil || k == Unsigned {
		return fmt.Errorf("revoke: the vendor has no key that signs for a %s", k)
	}
	if v.arkKey, err = simdir.ReadKey[crypto.Signer](dir, fileARKKey); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	if err := v.revoke(time.Now(), signer); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileBundle), v.bundle(), simdir.Public); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}
