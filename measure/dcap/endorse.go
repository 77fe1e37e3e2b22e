package dcap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// maxCRL bounds a revocation list in bytes.
const maxCRL = 8 << 20

// endorsements is collateral of which the signatures were checked, up to a
// root. What is wrong with a part is told by its error, and the part is nil.
// Dates are left out: they are checked whenever it is used.
type endorsements struct {
	info     *TCBInfo
	infoErr  error
	identity *QEIdentity
	idErr    error
	signers  []*x509.Certificate // of both, without the root

	pckCRL, rootCRL       *revocations
	pckCRLErr, rootCRLErr error
}

// whole reports whether every part is good.
func (e *endorsements) whole() bool {
	return errors.Join(e.infoErr, e.idErr, e.pckCRLErr, e.rootCRLErr) == nil
}

// endorse checks the signatures of collateral. Everything must lead to the
// same root as the PCK certificate: a simulated root cannot speak for Intel's
// platforms, nor the other way round.
func endorse(c Collateral, tee TEE, r *root, ca *x509.Certificate) *endorsements {
	e := new(endorsements)
	var err error
	if e.info, err = e.readTCBInfo(c, tee, r); err != nil {
		e.info, e.infoErr = nil, fmt.Errorf("TCB info: %w", err)
	}
	if e.identity, err = e.readQEIdentity(c, tee, r); err != nil {
		e.identity, e.idErr = nil, fmt.Errorf("QE identity: %w", err)
	}
	if e.pckCRL, err = readCRL(c.PCKCRL, ca); err != nil {
		e.pckCRLErr = fmt.Errorf("revocation list of PCK certificates: %w", err)
	}
	if e.rootCRL, err = readCRL(c.RootCRL, r.cert); err != nil {
		e.rootCRLErr = fmt.Errorf("revocation list of the root: %w", err)
	}
	return e
}

func (e *endorsements) readTCBInfo(c Collateral, tee TEE, r *root) (*TCBInfo, error) {
	signed, signer, err := readSigned(c.TCBInfo, "tcbInfo", c.TCBInfoChain, r)
	if err != nil {
		return nil, err
	}
	e.signers = append(e.signers, signer)
	i, err := parseTCBInfo(signed)
	if err == nil && i.ID != tee.infoID() {
		err = fmt.Errorf("it is for %q, want %q", i.ID, tee.infoID())
	}
	return i, err
}

func (e *endorsements) readQEIdentity(c Collateral, tee TEE, r *root) (*QEIdentity, error) {
	signed, signer, err := readSigned(c.QEIdentity, "enclaveIdentity", c.QEIdentityChain, r)
	if err != nil {
		return nil, err
	}
	e.signers = append(e.signers, signer)
	i, err := parseQEIdentity(signed)
	if err == nil && i.ID != tee.quotingEnclave().id {
		err = fmt.Errorf("it is for %q, want %q", i.ID, tee.quotingEnclave().id)
	}
	return i, err
}

// readSigned checks the signature of a document of the PCS and the chain of
// its signer, and returns what was signed.
func readSigned(raw []byte, member string, chain []byte, r *root) ([]byte, *x509.Certificate, error) {
	signed, signature, err := document(raw, member)
	if err != nil {
		return nil, nil, err
	}
	certs, err := parsePEM(chain, 2)
	if err != nil {
		return nil, nil, fmt.Errorf("the signer's chain: %w", err)
	}
	signer := certs[0]
	key, err := p256(signer)
	if err != nil {
		return nil, nil, err
	}
	if name := signer.Subject.CommonName; name != nameTCBSigning {
		return nil, nil, fmt.Errorf("the signer is named %q, want %q", name, nameTCBSigning)
	}
	if !r.key.Equal(certs[1].PublicKey) {
		return nil, nil, fmt.Errorf("the signer's chain ends in another root than %s", r.name)
	}
	if err := issued(signer, r.cert); err != nil {
		return nil, nil, err
	}
	if sum := sha256.Sum256(signed); !verify(key, sum[:], [64]byte(signature)) {
		return nil, nil, errors.New("the signature does not verify")
	}
	return signed, signer, nil
}

// verify checks a signature of r and s, big-endian.
func verify(key *ecdsa.PublicKey, digest []byte, signature [64]byte) bool {
	return ecdsa.Verify(key, digest, new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

// revocations is a revocation list in a form that can be looked into.
type revocations struct {
	list   *x509.RevocationList
	serial map[string]time.Time // revocation time by serial number
}

// readCRL reads a list in DER and checks who signed it.
func readCRL(der []byte, issuer *x509.Certificate) (*revocations, error) {
	switch {
	case len(der) == 0:
		return nil, errors.New("it is missing")
	case len(der) > maxCRL:
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(der), maxCRL)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return nil, fmt.Errorf("it was issued by %q, want %q", l.Issuer, issuer.Subject)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("it is not signed by %s: %w", issuer.Subject.CommonName, err)
	}
	r := &revocations{list: l, serial: make(map[string]time.Time, len(l.RevokedCertificateEntries))}
	for _, e := range l.RevokedCertificateEntries {
		r.serial[string(e.SerialNumber.Bytes())] = e.RevocationTime
	}
	return r, nil
}

// revoked returns an error if the list names a certificate.
func (r *revocations) revoked(c *x509.Certificate) error {
	if at, ok := r.serial[string(c.SerialNumber.Bytes())]; ok {
		return fmt.Errorf("the certificate %s (serial number %x) is revoked since %s", c.Subject.CommonName, c.SerialNumber, at.UTC().Format(time.RFC3339))
	}
	return nil
}

// quotingEnclave is what is known of Intel's quoting enclaves without any
// collateral.
type quotingEnclave struct {
	id     string // in the QE identity
	signer [32]byte
	prodID uint16
}

func (t TEE) infoID() string {
	if t == TDX {
		return "TDX"
	}
	return "SGX"
}

// quotingEnclave returns Intel's: the signers are those of the QE identities
// that Intel publishes, and have never changed.
func (t TEE) quotingEnclave() quotingEnclave {
	if t == TDX {
		return quotingEnclave{id: "TD_QE", prodID: 2, signer: [32]byte{
			0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43, 0xed, 0x03,
			0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e, 0x0e, 0x54, 0xa8, 0xc5,
		}}
	}
	return quotingEnclave{id: "QE", prodID: 1, signer: [32]byte{
		0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82, 0x9a,
		0x00, 0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5, 0x7b, 0xff,
	}}
}
