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
	e, err := parseEvidence(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	return e, nil
}

// wire reads the members of the evidence by their exact names: what differs
// from a name in case is not that member.
type wire map[string]json.RawMessage

func parseEvidence(data []byte) (*Evidence, error) {
	w, err := strictjson.Members(data)
	if err != nil {
		return nil, err
	}
	e := new(Evidence)
	if err := e.parseQuote(w["tpm_quote"]); err != nil {
		return nil, err
	}
	if e.AKPublic, err = wire(w).decode("ak_public", maxKeySize); err != nil {
		return nil, err
	}
	if err := e.parseChain(w["ak_certificates"]); err != nil {
		return nil, err
	}
	if log, ok := w["cc_eventlog"]; ok && string(log) != "null" {
		if e.EventLog, err = wire(w).decode("cc_eventlog", eventlog.MaxSize); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *Evidence) parseQuote(raw json.RawMessage) error {
	w, err := strictjson.Inner(raw)
	if err != nil {
		return fmt.Errorf("tpm_quote: %w", err)
	}
	q := wire(w)
	if e.Message, err = decode("tpm_quote.message", q["message"], 4<<10); err != nil {
		return err
	}
	if e.Quote, err = ParseQuote(e.Message); err != nil {
		return err
	}
	signature, err := decode("tpm_quote.signature", q["signature"], 2<<10)
	if err != nil {
		return err
	}
	if e.Signature, err = ParseSignature(signature); err != nil {
		return err
	}
	var values []string
	if err := json.Unmarshal(q["pcrs"], &values); err != nil {
		return errors.New("tpm_quote.pcrs is not a list of strings")
	}
	e.PCRs, err = parseValues(values)
	return err
}

func (e *Evidence) parseChain(raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	var chain []json.RawMessage
	if err := json.Unmarshal(raw, &chain); err != nil {
		return errors.New("ak_certificates is not a list")
	}
	if len(chain) > maxCertificates {
		return fmt.Errorf("ak_certificates has %d entries, at most %d are allowed", len(chain), maxCertificates)
	}
	for _, text := range chain {
		der, err := decode("ak_certificates", text, maxCertificateSize)
		if err != nil {
			return err
		}
		e.AKCertificates = append(e.AKCertificates, der)
	}
	return nil
}

func (w wire) decode(name string, limit int) ([]byte, error) { return decode(name, w[name], limit) }

// decode reads a string of the standard base64 of 1 to limit bytes.
func decode(name string, raw json.RawMessage, limit int) ([]byte, error) {
	text, err := strictjson.Text(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is not a string", name)
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
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
