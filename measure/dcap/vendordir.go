package dcap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/simdir"
)

// Files of a simulated vendor and of a simulated chip.
const (
	fileRootKey = "root.key"
	fileCAKey   = "ca.key"
	fileTCBKey  = "tcb.key"
	fileChain   = "chain.pem" // root, CA, signer
	fileBundle  = "root.pem"  // what [SimulatedRoot] takes; comes last

	fileChipKey   = "attestation.key"
	fileCertified = "quoting.bin" // a quote over zeros
)

// CreateVendor makes a simulated Intel in a directory that must not hold one
// yet: a root, the CA under it that certifies chips, and the signer of
// collateral. root.pem is what [SimulatedRoot] takes. The key files can make
// evidence that every verifier trusts which names this root; they have mode
// 0600.
func CreateVendor(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, fileBundle)); err == nil {
		return fmt.Errorf("create vendor: %s: %w", filepath.Join(dir, fileBundle), fs.ErrExist)
	}
	v, err := NewVendor(time.Now())
	if err == nil {
		err = v.write(dir)
	}
	if err != nil {
		return fmt.Errorf("create vendor: %w", err)
	}
	return nil
}

func (v *Vendor) write(dir string) error {
	rootKey, err1 := simdir.Key(fileRootKey, v.rootKey)
	caKey, err2 := simdir.Key(fileCAKey, v.caKey)
	tcbKey, err3 := simdir.Key(fileTCBKey, v.tcbKey)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	return simdir.Write(dir, rootKey, caKey, tcbKey,
		simdir.File{Name: fileChain, Data: encodePEM(v.root, v.ca, v.signer), Mode: simdir.Public},
		simdir.File{Name: fileBundle, Data: v.Bundle(), Mode: simdir.Public})
}

// OpenVendor opens a directory that [CreateVendor] made.
func OpenVendor(dir string) (*Vendor, error) {
	v := new(Vendor)
	raw, err := simdir.Read(dir, fileChain)
	if err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	certs, err := parsePEM(raw, 3)
	if err != nil {
		return nil, fmt.Errorf("open vendor: %s: %w", fileChain, err)
	}
	v.root, v.ca, v.signer = certs[0], certs[1], certs[2]
	if v.rootKey, err = simdir.ReadECDSA(dir, fileRootKey); err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	if v.caKey, err = simdir.ReadECDSA(dir, fileCAKey); err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	if v.tcbKey, err = simdir.ReadECDSA(dir, fileTCBKey); err != nil {
		return nil, fmt.Errorf("open vendor: %w", err)
	}
	return v, nil
}

// Files of published collateral.
const (
	fileInfo     = "tcb-info.json"
	fileIdentity = "qe-identity.json"
	fileSigners  = "signers.pem" // of both, and the CA of PCK certificates
	filePCKList  = "pck-crl.der"
	fileRootList = "root-crl.der"
)

// Save writes collateral into a directory that must not hold any yet, each part
// as the PCS answers it: package collateral reads such directories.
func (c Collateral) Save(dir string) error {
	public := func(name string, data []byte) simdir.File {
		return simdir.File{Name: name, Data: data, Mode: simdir.Public}
	}
	return simdir.Write(dir,
		public(fileInfo, c.TCBInfo), public(fileIdentity, c.QEIdentity),
		public(fileSigners, slices.Concat(c.TCBInfoChain, c.PCKCRLChain)),
		public(filePCKList, c.PCKCRL), public(fileRootList, c.RootCRL))
}

// Service is a simulated vendor that answers for its own chips, with
// collateral that is always new.
type Service struct {
	Vendor *Vendor
	Now    func() time.Time
}

// Collateral implements [Source].
func (s Service) Collateral(_ context.Context, r Request) (Collateral, error) {
	if r.FMSPC != SimulatedFMSPC || r.CA != Platform {
		return Collateral{}, fmt.Errorf("a simulated vendor knows no platform %x", r.FMSPC)
	}
	return s.Vendor.Collateral(r.TEE, s.Now(), Statement{})
}

// Save writes the chip into its guest's directory, which must not hold one yet.
func (c *Chip) Save(dir string) error {
	key, err := simdir.Key(fileChipKey, c.key)
	if err != nil {
		return err
	}
	version, kind, size := uint16(4), BodyTD10, tdReport10
	if c.tee == SGX {
		version, kind, size = 3, BodySGX, EnclaveReportSize
	}
	q, err := c.Quote(version, kind, make([]byte, size))
	if err != nil {
		return err
	}
	return simdir.Write(dir, key, simdir.File{Name: fileCertified, Data: q.Marshal(), Mode: simdir.Public})
}

// OpenChip reads what [Chip.Save] wrote.
func OpenChip(tee TEE, dir string) (*Chip, error) {
	c := &Chip{tee: tee}
	var err error
	if c.key, err = simdir.ReadECDSA(dir, fileChipKey); err != nil {
		return nil, err
	}
	raw, err := simdir.Read(dir, fileCertified)
	if err != nil {
		return nil, err
	}
	q, err := ParseQuote(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCertified, err)
	}
	c.certified = *q
	certs, err := parsePEM(q.Chain, 3)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCertified, err)
	}
	c.pck = certs[0]
	return c, nil
}
