package dcap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Chip is a simulated processor with its quoting enclave: it signs quotes. It
// is safe for concurrent use.
type Chip struct {
	tee       TEE
	key       *ecdsa.PrivateKey // the attestation key
	certified Quote             // what vouches for the key; header and body are empty
	pck       *x509.Certificate
}

// ChipOptions make a chip that is not as the vendor's collateral wants it. The
// zero value is one that is up to date.
type ChipOptions struct {
	// PCK changes what the chip's certificate says; nil leaves it.
	PCK func(*PCK)
	// QE changes the quoting enclave's report before it is signed.
	QE func(*EnclaveReport)
	// Certificate changes the PCK certificate before it is signed.
	Certificate func(*x509.Certificate)
}

// NewChip makes a chip with a quoting enclave of a TEE.
func (v *Vendor) NewChip(tee TEE, now time.Time, o ChipOptions) (*Chip, error) {
	c := &Chip{tee: tee}
	pckKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if c.pck, err = v.issuePCK(&pckKey.PublicKey, now, o); err != nil {
		return nil, err
	}
	q := &c.certified
	point, err := c.key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	q.Key = [64]byte(point[1:])
	q.AuthData = make([]byte, 32)
	for i := range q.AuthData {
		q.AuthData[i] = byte(i)
	}
	qe := tee.quotingEnclave()
	q.QEReport = &EnclaveReport{
		CPUSVN: simulatedComponents, Attributes: EnclaveAttributes{Flags: qeFlags | 1<<2, XFRM: 0xe7},
		MRSigner: qe.signer, ISVProdID: qe.prodID, ISVSVN: simulatedQESVN, ReportData: q.keyBinding(),
	}
	if o.QE != nil {
		o.QE(q.QEReport)
	}
	if q.QESignature, err = signRaw(pckKey, q.QEReport.Marshal()); err != nil {
		return nil, err
	}
	q.Chain = append(encodePEM(c.pck, v.ca, v.root), 0)
	return c, nil
}

// PCK returns the chip's certificate, for instance to revoke it.
func (c *Chip) PCK() *x509.Certificate { return c.pck }

func (v *Vendor) issuePCK(key *ecdsa.PublicKey, now time.Time, o ChipOptions) (*x509.Certificate, error) {
	smt := true
	p := &PCK{
		FMSPC: SimulatedFMSPC, Components: simulatedComponents, CPUSVN: simulatedComponents, PCESVN: simulatedPCESVN,
		Kind: Scalable, InstanceID: make([]byte, 16), Configuration: &Configuration{Dynamic: new(bool), CachedKeys: new(bool), SMT: &smt},
	}
	rand.Read(p.PPID[:])
	rand.Read(p.InstanceID)
	if o.PCK != nil {
		o.PCK(p)
	}
	extension, err := p.extension()
	if err != nil {
		return nil, err
	}
	serial := make([]byte, 19)
	rand.Read(serial)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: intelName(namePCK, "chip"),
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(pckLife),
		SignatureAlgorithm: x509.ECDSAWithSHA256, BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		SubjectKeyId:          serial,
		CRLDistributionPoints: []string{"https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der"},
		ExtraExtensions:       []pkix.Extension{extension},
	}
	if o.Certificate != nil {
		o.Certificate(template)
	}
	return issue(template, v.ca, key, v.caKey)
}

// extension encodes what a PCK certificate says of its platform.
func (p *PCK) extension() (pkix.Extension, error) {
	var tcb, all []attribute
	var errs []error
	add := func(list *[]attribute, oid asn1.ObjectIdentifier, value any) {
		der, err := asn1.Marshal(value)
		errs = append(errs, err)
		*list = append(*list, attribute{ID: oid, Value: asn1.RawValue{FullBytes: der}})
	}
	for i, n := range p.Components {
		add(&tcb, append(below(arcTCB), i+1), int(n))
	}
	add(&tcb, append(below(arcTCB), arcPCESVN), int(p.PCESVN))
	add(&tcb, append(below(arcTCB), arcCPUSVN), p.CPUSVN[:])
	add(&all, below(arcPPID), p.PPID[:])
	add(&all, below(arcTCB), tcb)
	add(&all, below(arcPCEID), p.PCEID[:])
	add(&all, below(arcFMSPC), p.FMSPC[:])
	add(&all, below(arcKind), asn1.Enumerated(p.Kind))
	if p.InstanceID != nil {
		add(&all, below(arcInstanceID), p.InstanceID)
	}
	if c := p.Configuration; c != nil {
		var list []attribute
		for i, b := range []*bool{c.Dynamic, c.CachedKeys, c.SMT} {
			if b != nil {
				add(&list, append(below(arcConfiguration), i+1), *b)
			}
		}
		add(&all, below(arcConfiguration), list)
	}
	der, err := asn1.Marshal(all)
	if err := errors.Join(append(errs, err)...); err != nil {
		return pkix.Extension{}, fmt.Errorf("PCK extension: %w", err)
	}
	return pkix.Extension{Id: oidSGX, Value: der}, nil
}

// Quote signs a body, in a quote of a version.
func (c *Chip) Quote(version uint16, kind BodyType, body []byte) (*Quote, error) {
	q := c.certified
	q.Header = Header{Version: version, KeyType: keyTypeP256, VendorID: intelVendor}
	if c.tee == TDX {
		q.Header.TEEType = teeTypeTDX
	} else {
		q.Header.Reserved = [4]byte{simulatedQESVN, 0, simulatedPCESVN, 0}
	}
	q.BodyType, q.Body = kind, body
	var err error
	if q.Signature, err = signRaw(c.key, q.marshalSigned()); err != nil {
		return nil, fmt.Errorf("sign quote: %w", err)
	}
	return ParseQuote(q.Marshal())
}
