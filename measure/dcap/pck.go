package dcap

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// PCK is a provisioning certification key's certificate: whose platform it is,
// and the TCB for which Intel derived the key (Intel SGX PCK Certificate and
// CRL Profile, section 1.3.5).
type PCK struct {
	Certificate *x509.Certificate
	CA          CA // that issued it
	PPID        [16]byte
	FMSPC       [6]byte
	PCEID       [2]byte
	CPUSVN      [16]byte
	Components  [16]uint8 // the CPUSVN, in parts that can be compared
	PCESVN      uint16
	Kind        PlatformKind

	// What only the Platform CA certifies.
	InstanceID    []byte // 16 bytes, nil if absent
	Configuration *Configuration
}

// PlatformKind is the protection that a platform gives to enclave memory.
type PlatformKind uint8

// The kinds, under the names that policies know (kbs-protocol 16.3).
const (
	Standard PlatformKind = iota
	Scalable
	ScalableWithIntegrity
)

// String returns the name in claims.
func (k PlatformKind) String() string {
	switch k {
	case Standard:
		return "Standard"
	case Scalable:
		return "Scalable"
	case ScalableWithIntegrity:
		return "Scalable with Integrity"
	}
	return fmt.Sprintf("unknown (%d)", uint8(k))
}

// Configuration is how a platform was set up. A nil member is one that the
// certificate does not tell.
type Configuration struct{ Dynamic, CachedKeys, SMT *bool }

const sgxArc = "1.2.840.113741.1.13.1"

var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// The numbers below oidSGX.
const (
	arcPPID          = 1
	arcTCB           = 2
	arcPCEID         = 3
	arcFMSPC         = 4
	arcKind          = 5
	arcInstanceID    = 6
	arcConfiguration = 7

	arcPCESVN = 17 // below arcTCB, after the sixteen components
	arcCPUSVN = 18

	arcDynamic    = 1 // below arcConfiguration
	arcCachedKeys = 2
	arcSMT        = 3
)

// The authorities' names.
const (
	nameRoot        = "Intel SGX Root CA"
	namePlatformCA  = "Intel SGX PCK Platform CA"
	nameProcessorCA = "Intel SGX PCK Processor CA"
	namePCK         = "Intel SGX PCK Certificate"
	nameTCBSigning  = "Intel SGX TCB Signing"
)

// ParsePCK reads what a certificate says of its platform. The signature and
// the chain are not looked at.
func ParsePCK(cert *x509.Certificate) (*PCK, error) {
	p := &PCK{Certificate: cert}
	if name := cert.Subject.CommonName; name != namePCK {
		return nil, fmt.Errorf("the certificate is named %q, want %q", name, namePCK)
	}
	switch name := cert.Issuer.CommonName; name {
	case namePlatformCA:
		p.CA = Platform
	case nameProcessorCA:
		p.CA = Processor
	default:
		return nil, fmt.Errorf("the issuer is named %q, want %q or %q", name, namePlatformCA, nameProcessorCA)
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSGX) {
			if err := p.parseExtension(e.Value); err != nil {
				return nil, fmt.Errorf("extension %s: %w", sgxArc, err)
			}
			return p, nil
		}
	}
	return nil, fmt.Errorf("the certificate has no extension %s", sgxArc)
}

// attribute is one entry of the SGX extension: a name and a value of its own
// type.
type attribute struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// attributes reads a sequence of attributes right below an OID, each at most
// once.
func attributes(der []byte, parent asn1.ObjectIdentifier) (map[int]asn1.RawValue, error) {
	var list []attribute
	rest, err := asn1.Unmarshal(der, &list)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errors.New("bytes after the sequence")
	}
	out := make(map[int]asn1.RawValue, len(list))
	for _, a := range list {
		if len(a.ID) != len(parent)+1 || !a.ID[:len(parent)].Equal(parent) {
			return nil, fmt.Errorf("%s is not below %s", a.ID, parent)
		}
		arc := a.ID[len(parent)]
		if _, twice := out[arc]; twice {
			return nil, fmt.Errorf("%s comes twice", a.ID)
		}
		out[arc] = a.Value
	}
	return out, nil
}

func (p *PCK) parseExtension(der []byte) error {
	all, err := attributes(der, oidSGX)
	if err != nil {
		return err
	}
	kind, err := small(all[arcKind], asn1.TagEnum, uint64(ScalableWithIntegrity))
	if err != nil {
		return fmt.Errorf("SGX type: %w", err)
	}
	p.Kind = PlatformKind(kind)
	if err := errors.Join(
		octets("PPID", all[arcPPID], p.PPID[:]),
		octets("PCEID", all[arcPCEID], p.PCEID[:]),
		octets("FMSPC", all[arcFMSPC], p.FMSPC[:]),
		p.parseTCB(all[arcTCB]),
	); err != nil {
		return err
	}
	if v, ok := all[arcInstanceID]; ok {
		p.InstanceID = make([]byte, 16)
		if err := octets("platform instance id", v, p.InstanceID); err != nil {
			return err
		}
	}
	if v, ok := all[arcConfiguration]; ok {
		return p.parseConfiguration(v)
	}
	return nil
}

func (p *PCK) parseTCB(v asn1.RawValue) error {
	all, err := attributes(v.FullBytes, below(arcTCB))
	if err != nil {
		return fmt.Errorf("TCB: %w", err)
	}
	for i := range p.Components {
		n, err := small(all[i+1], asn1.TagInteger, 0xff)
		if err != nil {
			return fmt.Errorf("TCB component %d: %w", i+1, err)
		}
		p.Components[i] = uint8(n)
	}
	n, err := small(all[arcPCESVN], asn1.TagInteger, 0xffff)
	if err != nil {
		return fmt.Errorf("PCESVN: %w", err)
	}
	p.PCESVN = uint16(n)
	return octets("CPUSVN", all[arcCPUSVN], p.CPUSVN[:])
}

func (p *PCK) parseConfiguration(v asn1.RawValue) error {
	all, err := attributes(v.FullBytes, below(arcConfiguration))
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	c := new(Configuration)
	for arc, field := range map[int]**bool{arcDynamic: &c.Dynamic, arcCachedKeys: &c.CachedKeys, arcSMT: &c.SMT} {
		v, ok := all[arc]
		if !ok {
			continue
		}
		b := new(bool)
		if rest, err := asn1.Unmarshal(v.FullBytes, b); err != nil || len(rest) > 0 {
			return fmt.Errorf("configuration: %d is not a boolean", arc)
		}
		*field = b
	}
	p.Configuration = c
	return nil
}

func below(arc int) asn1.ObjectIdentifier {
	return append(append(asn1.ObjectIdentifier(nil), oidSGX...), arc)
}

// octets copies an OCTET STRING that must be as long as the field.
func octets(what string, v asn1.RawValue, field []byte) error {
	switch {
	case v.FullBytes == nil:
		return fmt.Errorf("%s is missing", what)
	case v.Class != asn1.ClassUniversal || v.Tag != asn1.TagOctetString || v.IsCompound:
		return fmt.Errorf("%s is not a string of bytes", what)
	case len(v.Bytes) != len(field):
		return fmt.Errorf("%s has %d bytes, want %d", what, len(v.Bytes), len(field))
	}
	copy(field, v.Bytes)
	return nil
}

// small reads a non-negative INTEGER or ENUMERATED up to a limit below 2^24.
func small(v asn1.RawValue, tag int, limit uint64) (uint64, error) {
	switch {
	case v.FullBytes == nil:
		return 0, errors.New("missing")
	case v.Class != asn1.ClassUniversal || v.Tag != tag || v.IsCompound:
		return 0, errors.New("of the wrong type")
	case len(v.Bytes) == 0 || len(v.Bytes) > 4 || v.Bytes[0]&0x80 != 0:
		return 0, errors.New("not a small number")
	}
	var n uint64
	for _, b := range v.Bytes {
		n = n<<8 | uint64(b)
	}
	if n > limit {
		return 0, fmt.Errorf("%d is more than %d", n, limit)
	}
	return n, nil
}
