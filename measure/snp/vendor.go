package snp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Files of a simulated vendor and of a simulated guest.
const (
	fileARKKey  = "ark.key"
	fileASKKey  = "ask.key"
	fileBundle  = "root.pem" // what [SimulatedRoot] takes
	fileVCEKKey = "vcek.key"
	fileChain   = "chain.pem" // VCEK, ASK, ARK
	fileLaunch  = "launch.json"
)

const pemPrivateKey = "PRIVATE KEY"

// Lifetimes of what the simulated vendor issues. Everything starts an hour
// early, for guests and brokers whose clocks differ.
const (
	vendorLife = 25 * 365 * 24 * time.Hour
	vcekLife   = 7 * 365 * 24 * time.Hour
	clockSlack = time.Hour
)

// vendor is a simulated AMD for one generation.
type vendor struct {
	generation     Generation
	arkKey, askKey crypto.Signer // arkKey is nil where only guests are made
	ark, ask       *x509.Certificate
	crl            *x509.RevocationList
}

// CreateVendor makes a simulated vendor for a generation ("Milan", "Genoa" or
// "Turin") in a directory that must not hold one yet: a root (ARK) and a
// signing key (ASK) of 4096-bit RSA, an empty revocation list, and root.pem,
// the bundle that [SimulatedRoot] takes. It takes seconds. The key files can
// make evidence that every verifier trusts which names this root; they have
// mode 0600.
func CreateVendor(dir, product string) error {
	g, err := ParseGeneration(product)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, fileBundle)); err == nil {
		return fmt.Errorf("create vendor: %s: %w", filepath.Join(dir, fileBundle), fs.ErrExist)
	}
	arkKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	askKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	v, err := newVendor(g, arkKey, askKey, time.Now())
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
	ark, err := marshalKey(v.arkKey)
	if err != nil {
		return err
	}
	ask, err := marshalKey(v.askKey)
	if err != nil {
		return err
	}
	return writeNew(dir, file{fileARKKey, ark, 0o600}, file{fileASKKey, ask, 0o600}, file{fileBundle, v.bundle(), 0o644})
}

// newVendor issues the certificates and the first, empty, revocation list.
func newVendor(g Generation, arkKey, askKey crypto.Signer, now time.Time) (*vendor, error) {
	v := &vendor{generation: g, arkKey: arkKey, askKey: askKey}
	mark := make([]byte, 8)
	rand.Read(mark)
	ark := v.authority("ARK-"+string(g), 1, hex.EncodeToString(mark), now)
	ark.KeyUsage |= x509.KeyUsageCRLSign
	var err error
	if v.ark, err = issue(ark, ark, arkKey.Public(), arkKey); err != nil {
		return nil, err
	}
	ask := v.authority("SEV-"+string(g), 2, hex.EncodeToString(mark), now)
	if v.ask, err = issue(ask, v.ark, askKey.Public(), arkKey); err != nil {
		return nil, err
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
	out := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: v.ark.Raw})
	out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: v.ask.Raw})...)
	return append(out, pem.EncodeToMemory(&pem.Block{Type: pemCRL, Bytes: v.crl.Raw})...)
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
	key, err := readKey(filepath.Join(dir, fileASKKey))
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	return &vendor{generation: r.generation, askKey: key, ark: r.ark, ask: r.ask, crl: r.crl}, nil
}

// processor tells what a generation looks like: CPUID family, model and
// stepping, the product name that AMD gives to that stepping, and a TCB.
func (g Generation) processor() (fms [3]uint8, product string, svns SVNs) {
	switch g {
	case Turin:
		fmc := uint8(1)
		return [3]uint8{familyZen5, 0x02, 0}, "Turin-B0", SVNs{FMC: &fmc, Bootloader: 2, TEE: 1, SNP: 4, Microcode: 76}
	case Genoa:
		return [3]uint8{familyZen3, 0x11, 1}, "Genoa-B1", SVNs{Bootloader: 10, TEE: 0, SNP: 23, Microcode: 84}
	case Milan:
	}
	return [3]uint8{familyZen3, 0x01, 1}, "Milan-B1", SVNs{Bootloader: 4, TEE: 0, SNP: 24, Microcode: 219}
}

// issueVCEK makes the key of a chip and certifies it for a TCB.
func (v *vendor) issueVCEK(chip []byte, svns SVNs, now time.Time) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	extensions, err := vcekExtensions(v.generation, chip, svns)
	if err != nil {
		return nil, nil, err
	}
	cert, err := issue(&x509.Certificate{
		SerialNumber: new(big.Int), // as AMD does for all of them
		Subject:      amdName("SEV-VCEK"), NotBefore: now.Add(-clockSlack), NotAfter: now.Add(vcekLife),
		SignatureAlgorithm: x509.SHA384WithRSAPSS, ExtraExtensions: extensions,
	}, v.ask, key.Public(), v.askKey)
	return key, cert, err
}

func vcekExtensions(g Generation, chip []byte, svns SVNs) ([]pkix.Extension, error) {
	_, product, _ := g.processor()
	name, err := asn1.MarshalWithParams(product, "ia5")
	if err != nil {
		return nil, err
	}
	out := []pkix.Extension{{Id: oidProductName, Value: name}, {Id: oidHWID, Value: chip}}
	numbers := []struct {
		oid asn1.ObjectIdentifier
		n   uint8
	}{
		{oidStructVersion, 0}, {oidBootloader, svns.Bootloader}, {oidTEE, svns.TEE}, {oidReserved4, 0}, {oidReserved5, 0},
		{oidReserved6, 0}, {oidReserved7, 0}, {oidSNP, svns.SNP}, {oidMicrocode, svns.Microcode},
	}
	if svns.FMC != nil {
		numbers = append(numbers, struct {
			oid asn1.ObjectIdentifier
			n   uint8
		}{oidFMC, *svns.FMC})
	}
	for _, e := range numbers {
		value, err := asn1.Marshal(int(e.n))
		if err != nil {
			return nil, err
		}
		out = append(out, pkix.Extension{Id: e.oid, Value: value})
	}
	return out, nil
}

type file struct {
	name string
	data []byte
	mode os.FileMode
}

// writeNew makes the directory and writes files that must not exist yet, in
// order, and stops at the first that fails.
func writeNew(dir string, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, o := range files {
		f, err := os.OpenFile(filepath.Join(dir, o.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.mode)
		if err != nil {
			return err
		}
		_, err = f.Write(o.data)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func marshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

func readKey(path string) (crypto.Signer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != pemPrivateKey {
		return nil, fmt.Errorf("%s is not a private key in PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T cannot sign", path, key)
	}
	return signer, nil
}
