package snp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/p384"
)

// Extensions of the certificate, under AMD's arc (kbs-protocol 16.2). The
// reserved numbers 4 to 7 are not compared: the report has no place for them
// on Turin, and go-sev-guest compares them on the others.
var (
	oidStructVersion = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 1}
	oidProductName   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 2}
	oidBootloader    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 1}
	oidTEE           = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 2}
	oidSNP           = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 3}
	oidReserved4     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 4}
	oidReserved5     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 5}
	oidReserved6     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 6}
	oidReserved7     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 7}
	oidMicrocode     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 8}
	oidFMC           = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}
	oidHWID          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 4}
	oidCSP           = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 5}
)

// leaf is the certificate of the key that signs reports, for one TCB, taken
// apart: a chip's own key (VCEK) or one that AMD lent to a cloud (VLEK).
type leaf struct {
	cert    *x509.Certificate
	key     *ecdsa.PublicKey
	kind    SigningKey
	product string // for example "Milan-B0", for a VLEK "Milan"
	svns    SVNs
	hwid    []byte                    // of a VCEK
	csp     string                    // of a VLEK: the cloud
	table   func() (*p384.Key, error) // made at the first use
}

// Names of the certificates (AMD 57230, sections 3 and 4).
const (
	nameVCEK = "SEV-VCEK"
	nameVLEK = "SEV-VLEK"
)

// parseLeaf reads the certificate. It says nothing about who signed it.
func parseLeaf(der []byte) (*leaf, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, errors.New("its key is not on P-384")
	}
	if cert.Version != 3 || cert.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return nil, fmt.Errorf("it is an X.509 v%d certificate signed with %s, want v3 with RSASSA-PSS and SHA-384", cert.Version, cert.SignatureAlgorithm)
	}
	v := &leaf{cert: cert, key: key, table: sync.OnceValues(func() (*p384.Key, error) { return p384.NewKey(key) })}
	switch cn := cert.Subject.CommonName; cn {
	case nameVCEK:
		v.kind = VCEK
	case nameVLEK:
		v.kind = VLEK
	default:
		return nil, fmt.Errorf("it is named %q, want %s or %s", cn, nameVCEK, nameVLEK)
	}
	if err := v.parseExtensions(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *leaf) parseExtensions() error {
	name, ok := v.extension(oidProductName)
	if !ok {
		return errors.New("it names no product")
	}
	if rest, err := asn1.UnmarshalWithParams(name, &v.product, "ia5"); err != nil || len(rest) != 0 {
		return errors.New("its product name is malformed")
	}
	for _, f := range []struct {
		oid asn1.ObjectIdentifier
		to  *uint8
	}{
		{oidBootloader, &v.svns.Bootloader}, {oidTEE, &v.svns.TEE}, {oidSNP, &v.svns.SNP}, {oidMicrocode, &v.svns.Microcode},
	} {
		ext, ok := v.extension(f.oid)
		if !ok {
			return fmt.Errorf("extension %s is missing", f.oid)
		}
		if err := parseSVN(ext, f.to); err != nil {
			return fmt.Errorf("extension %s: %w", f.oid, err)
		}
	}
	if ext, ok := v.extension(oidFMC); ok {
		v.svns.FMC = new(uint8)
		if err := parseSVN(ext, v.svns.FMC); err != nil {
			return fmt.Errorf("extension %s: %w", oidFMC, err)
		}
	}
	return v.parseOwner()
}

// parseOwner reads whose key it is: a chip's, or a cloud's.
func (v *leaf) parseOwner() error {
	csp, lent := v.extension(oidCSP)
	hwid, own := v.extension(oidHWID)
	switch {
	case v.kind == VLEK && own:
		return errors.New("it names a chip, but a VLEK belongs to none")
	case v.kind == VLEK && !lent:
		return errors.New("it names no cloud")
	case v.kind == VLEK:
		if rest, err := asn1.UnmarshalWithParams(csp, &v.csp, "ia5"); err != nil || len(rest) != 0 || v.csp == "" {
			return errors.New("its name of the cloud is malformed")
		}
		return nil
	case lent:
		return errors.New("it names a cloud, but a VCEK belongs to a chip")
	case !own:
		return errors.New("it names no chip")
	}
	v.hwid = hwid
	return v.unwrapChip()
}

// unwrapChip reads the chip id: 64 bytes, or 8 on Turin. AMD wrote it without
// an ASN.1 header once and as an OCTET STRING in later certificates.
func (v *leaf) unwrapChip() error {
	if n := len(v.hwid); n == 64 || n == 8 {
		return nil
	}
	var inner []byte
	rest, err := asn1.Unmarshal(v.hwid, &inner)
	if err != nil || len(rest) != 0 || len(inner) != 64 && len(inner) != 8 {
		return errors.New("its chip id is malformed")
	}
	v.hwid = inner
	return nil
}

func (v *leaf) extension(oid asn1.ObjectIdentifier) ([]byte, bool) {
	for _, e := range v.cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}

func parseSVN(ext []byte, to *uint8) error {
	var n int
	rest, err := asn1.Unmarshal(ext, &n)
	if err != nil || len(rest) != 0 || n < 0 || n > 255 {
		return errors.New("not a number from 0 to 255")
	}
	*to = uint8(n)
	return nil
}

// generation is the one of the product name, for reports that do not name
// their processor. Newer reports do, and some certificates name a wrong one.
func (v *leaf) generation() (Generation, error) {
	line, _, _ := strings.Cut(v.product, "-")
	return ParseGeneration(line)
}

// ofChip reports whether the certificate was made for the chip.
func (v *leaf) ofChip(id [64]byte) bool {
	var own [64]byte
	copy(own[:], v.hwid)
	return own == id
}

// signed reports whether the key signed the report: ECDSA on P-384 over the
// SHA-384 of its first [SignedSize] bytes. A key that was seen before gets the
// table that makes its further signatures cheap.
func (v *leaf) signed(raw []byte, r *Report, seen bool) bool {
	sum := sha512.Sum384(raw[:SignedSize])
	if seen {
		if key, err := v.table(); err == nil {
			return key.Verify(sum, littleEndian(r.SignatureR), littleEndian(r.SignatureS))
		}
	}
	return ecdsa.Verify(v.key, sum[:], littleEndian(r.SignatureR), littleEndian(r.SignatureS))
}

func littleEndian(b [72]byte) *big.Int {
	slices.Reverse(b[:]) // b is a copy
	return new(big.Int).SetBytes(b[:])
}

// ChipCertificate is what the certificate of a chip's key (VCEK) says.
type ChipCertificate struct {
	Certificate *x509.Certificate
	Chip        []byte // 64 bytes, or 8 on Turin
	SVNs        SVNs
}

// ReadVCEK reads the certificate of a chip's key (DER) for who keeps such
// certificates. It says nothing about who signed it.
func ReadVCEK(der []byte) (ChipCertificate, error) {
	l, err := parseLeaf(der)
	if err != nil {
		return ChipCertificate{}, err
	}
	if l.kind != VCEK {
		return ChipCertificate{}, fmt.Errorf("it is the certificate of a %s", l.kind)
	}
	return ChipCertificate{Certificate: l.cert, Chip: l.hwid, SVNs: l.svns}, nil
}
