package tpm

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits on evidence from the wire. Without an event log it has about 4 kB.
const (
	MaxEvidenceSize    = 16 << 20 // bytes of JSON
	maxKeySize         = 4 << 10  // bytes of a public key
	maxCertificates    = 8
	maxCertificateSize = 16 << 10
)

// Evidence is a quote with all that came along.
type Evidence struct {
	Message   []byte // the TPMS_ATTEST, as it was signed
	Quote     *Quote
	Signature *Signature
	PCRs      [][]byte
	AKPublic  []byte // SubjectPublicKeyInfo in DER
	// AKCertificates are the certificate of the AK and those between it and a
	// root. Ours: the field's attester has no place for them. Usually none.
	AKCertificates [][]byte
	EventLog       []byte // nil if there is none
}

// wireEvidence is the JSON of kbs-protocol 16.6. The last two members are
// ours; cc_eventlog is spelled as for the other platforms.
type wireEvidence struct {
	Quote    wireQuote `json:"tpm_quote"`
	AKPublic string    `json:"ak_public"`
	Chain    []string  `json:"ak_certificates,omitempty"`
	EventLog *string   `json:"cc_eventlog,omitempty"`
}

type wireQuote struct {
	Signature string   `json:"signature"`
	Message   string   `json:"message"`
	PCRs      []string `json:"pcrs"`
}

// ParseEvidence reads the wire form of kbs-protocol 16.6. Unknown members are
// skipped, as the field does; a member that comes twice is an error.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	if ev.Platform != measure.TPM {
		return nil, fmt.Errorf("evidence of platform %q given to the TPM parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("TPM evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	if _, err := strictjson.Members(ev.Data); err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	var w wireEvidence
	if err := json.Unmarshal(ev.Data, &w); err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	e, err := w.parse()
	if err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	return e, nil
}

func (w wireEvidence) parse() (*Evidence, error) {
	e := new(Evidence)
	var err error
	if e.Message, err = decode("tpm_quote.message", w.Quote.Message, 4<<10); err != nil {
		return nil, err
	}
	if e.Quote, err = ParseQuote(e.Message); err != nil {
		return nil, err
	}
	signature, err := decode("tpm_quote.signature", w.Quote.Signature, 2<<10)
	if err != nil {
		return nil, err
	}
	if e.Signature, err = ParseSignature(signature); err != nil {
		return nil, err
	}
	if e.PCRs, err = parseValues(w.Quote.PCRs); err != nil {
		return nil, err
	}
	if e.AKPublic, err = decode("ak_public", w.AKPublic, maxKeySize); err != nil {
		return nil, err
	}
	if len(w.Chain) > maxCertificates {
		return nil, fmt.Errorf("ak_certificates has %d entries, at most %d are allowed", len(w.Chain), maxCertificates)
	}
	for _, text := range w.Chain {
		der, err := decode("ak_certificates", text, maxCertificateSize)
		if err != nil {
			return nil, err
		}
		e.AKCertificates = append(e.AKCertificates, der)
	}
	if w.EventLog != nil {
		if e.EventLog, err = decode("cc_eventlog", *w.EventLog, eventlog.MaxSize); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// decode reads standard base64 of 1 to limit bytes.
func decode(name, text string, limit int) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 || len(b) > limit {
		return nil, fmt.Errorf("%s is not the base64 of 1 to %d bytes", name, limit)
	}
	return b, nil
}

// Wire returns the evidence in the form that [ParseEvidence] reads. Message
// is what is sent of the quote.
func (e *Evidence) Wire() (measure.Evidence, error) {
	if e.Signature == nil {
		return measure.Evidence{}, errors.New("encode TPM evidence: there is no signature")
	}
	std := base64.StdEncoding.EncodeToString
	w := wireEvidence{
		Quote: wireQuote{Signature: std(e.Signature.Marshal()), Message: std(e.Message)}, AKPublic: std(e.AKPublic),
	}
	for _, v := range e.PCRs {
		w.Quote.PCRs = append(w.Quote.PCRs, hex.EncodeToString(v))
	}
	for _, der := range e.AKCertificates {
		w.Chain = append(w.Chain, std(der))
	}
	if e.EventLog != nil {
		text := std(e.EventLog)
		w.EventLog = &text
	}
	data, err := json.Marshal(w)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("encode TPM evidence: %w", err)
	}
	return measure.Evidence{Platform: measure.TPM, Data: data}, nil
}

// key returns the public key that came along.
func (e *Evidence) key() (crypto.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(e.AKPublic)
	if err != nil {
		return nil, fmt.Errorf("the AK is malformed: %w", err)
	}
	return k, nil
}

// signedByItsKey checks that the key in the evidence signed the quote, which
// says nothing about whose key it is.
func (e *Evidence) signedByItsKey() error {
	key, err := e.key()
	if err != nil {
		return err
	}
	if err := e.Signature.Verify(key, e.Message); err != nil {
		return fmt.Errorf("the AK did not sign this quote: %w", err)
	}
	return nil
}
