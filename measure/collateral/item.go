package collateral

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Item is one piece of collateral, as its publisher serves it.
type Item struct {
	Name    Name      `json:"name"`
	Source  string    `json:"source"`  // who gave it, for people
	Fetched time.Time `json:"fetched"` // when
	// Body is JSON for Intel's documents, DER for lists and certificates, PEM
	// for AMD's chains.
	Body []byte `json:"body"`
	// Chain is PEM, for what Intel publishes with a chain beside it: the signer,
	// then the root.
	Chain []byte `json:"chain,omitempty"`
}

// facts are what an item says about itself.
type facts struct {
	from, until time.Time
	// number orders the editions of one item: that of a list, or Intel's number
	// of an evaluation. Nil where there is none.
	number *big.Int
}

// olderThan reports whether an edition was published before another.
func (f facts) olderThan(g facts) bool {
	if f.number != nil && g.number != nil && f.number.Cmp(g.number) != 0 {
		return f.number.Cmp(g.number) < 0
	}
	return f.from.Before(g.from)
}

// authorities are the certificates whose keys are believed.
type authorities []*x509.Certificate

// read checks that an item is what its name says and that an authority signed
// it, and returns what it says about itself. Dates are for the caller.
func (a authorities) read(i Item) (facts, error) {
	r, err := i.Name.parse()
	if err != nil {
		return facts{}, err
	}
	if len(i.Body) > r.kind.limit() || len(i.Chain) > maxChain {
		return facts{}, fmt.Errorf("%d bytes, at most %d are allowed", len(i.Body)+len(i.Chain), r.kind.limit()+maxChain)
	}
	var f facts
	switch r.kind {
	case kindTCBInfo, kindQEIdentity:
		f, err = a.document(r, i)
	case kindPCKCRL:
		f, err = a.pckList(r, i)
	case kindRootCRL:
		f, err = a.list(i.Body, nameIntelRoot)
	case kindAMDList:
		f, err = a.list(i.Body, "ARK-"+string(r.generation))
	case kindAMDChain:
		f, err = a.amdChain(r, i.Body)
	case kindVCEK:
		f, err = a.vcek(r, i.Body)
	}
	return f, err
}

// issued checks that one of the authorities issued a certificate.
func (a authorities) issued(c *x509.Certificate) error {
	for _, ca := range a {
		if bytes.Equal(ca.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(ca) == nil {
			return nil
		}
	}
	return fmt.Errorf("nobody who is trusted signed %q", c.Subject.CommonName)
}

// list reads a revocation list that an authority of this name signed.
func (a authorities) list(der []byte, issuer string) (facts, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return facts{}, err
	}
	if l.Issuer.CommonName != issuer {
		return facts{}, fmt.Errorf("a list of %q, want %q", l.Issuer.CommonName, issuer)
	}
	for _, ca := range a {
		if bytes.Equal(ca.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(ca) == nil {
			return listFacts(l)
		}
	}
	return facts{}, errors.New("nobody who is trusted signed it")
}

func listFacts(l *x509.RevocationList) (facts, error) {
	if l.NextUpdate.IsZero() {
		return facts{}, errors.New("the list does not say until when it holds")
	}
	return facts{from: l.ThisUpdate, until: l.NextUpdate, number: l.Number}, nil
}

// pckList reads a list of a PCK authority, which is not trusted itself but
// whose certificate comes beside.
func (a authorities) pckList(r ref, i Item) (facts, error) {
	ca, err := a.head(i.Chain)
	if err != nil {
		return facts{}, err
	}
	if pckAuthorities[ca.Subject.CommonName] != r.ca {
		return facts{}, fmt.Errorf("a list of %q, want one of the %s CA", ca.Subject.CommonName, r.ca)
	}
	f, err := authorities{ca}.list(i.Body, ca.Subject.CommonName)
	return f.within(ca), err
}

// within shortens the life of what a certificate signed to the certificate's.
func (f facts) within(c *x509.Certificate) facts {
	if c.NotAfter.Before(f.until) {
		f.until = c.NotAfter
	}
	return f
}

// head returns the first certificate of a chain, which an authority issued.
func (a authorities) head(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil || block.Type != pemCertificate {
		return nil, errors.New("the issuer chain is missing")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("issuer chain: %w", err)
	}
	return c, a.issued(c)
}

// document reads TCB info or a QE identity (Intel PCS API version 4): a JSON
// object with the signed one in it, and a signature over its very bytes.
func (a authorities) document(r ref, i Item) (facts, error) {
	member := "tcbInfo"
	if r.kind == kindQEIdentity {
		member = "enclaveIdentity"
	}
	outer, err := strictjson.Members(i.Body)
	if err != nil {
		return facts{}, err
	}
	var text string
	if err := json.Unmarshal(outer["signature"], &text); err != nil {
		return facts{}, errors.New("it has no signature")
	}
	sig, err := hex.DecodeString(text)
	if err != nil || len(sig) != 64 {
		return facts{}, errors.New("the signature is not the hex of 64 bytes")
	}
	signer, err := a.head(i.Chain)
	if err != nil {
		return facts{}, err
	}
	if name := signer.Subject.CommonName; name != nameIntelSigner {
		return facts{}, fmt.Errorf("the signer is named %q, want %q", name, nameIntelSigner)
	}
	key, ok := signer.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(outer[member])
	if !ok || len(outer[member]) == 0 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return facts{}, errors.New("the signature does not verify")
	}
	var d struct {
		ID         string    `json:"id"`
		FMSPC      string    `json:"fmspc"`
		IssueDate  time.Time `json:"issueDate"`
		NextUpdate time.Time `json:"nextUpdate"`
		Evaluation int64     `json:"tcbEvaluationDataNumber"`
	}
	if err := json.Unmarshal(outer[member], &d); err != nil {
		return facts{}, err
	}
	if want := r.documentID(); d.ID != want {
		return facts{}, fmt.Errorf("it is for %q, want %q", d.ID, want)
	}
	if want := hex.EncodeToString(r.fmspc[:]); r.kind == kindTCBInfo && !strings.EqualFold(d.FMSPC, want) {
		return facts{}, fmt.Errorf("it is for the platforms %q, want %s", d.FMSPC, want)
	}
	f := facts{from: d.IssueDate, until: d.NextUpdate, number: big.NewInt(d.Evaluation)}
	return f.within(signer), nil
}

func (r ref) documentID() string {
	switch {
	case r.kind == kindTCBInfo && r.tee == dcap.TDX:
		return "TDX"
	case r.kind == kindTCBInfo:
		return "SGX"
	case r.tee == dcap.TDX:
		return "TD_QE"
	}
	return "QE"
}

const pemCertificate = "CERTIFICATE"

// amdChain reads a signing certificate and the root above it.
func (a authorities) amdChain(r ref, raw []byte) (facts, error) {
	signer, err := a.head(raw)
	if err != nil {
		return facts{}, err
	}
	want := "SEV-" + string(r.generation)
	if r.key == snp.VLEK {
		want = "SEV-VLEK-" + string(r.generation)
	}
	if signer.Subject.CommonName != want {
		return facts{}, fmt.Errorf("it is the chain of %q, want %q", signer.Subject.CommonName, want)
	}
	return facts{from: signer.NotBefore, until: signer.NotAfter}, nil
}

// vcek reads the certificate of a chip's key.
func (a authorities) vcek(r ref, der []byte) (facts, error) {
	c, err := snp.ReadVCEK(der)
	if err != nil {
		return facts{}, err
	}
	if !bytes.Equal(c.Chip, r.chip) {
		return facts{}, fmt.Errorf("it is for the chip %x", c.Chip)
	}
	if tcb := c.SVNs.TCB(r.generation); tcb != r.tcb {
		return facts{}, fmt.Errorf("it is for the TCB %x", tcb)
	}
	return facts{from: c.Certificate.NotBefore, until: c.Certificate.NotAfter}, a.issued(c.Certificate)
}
