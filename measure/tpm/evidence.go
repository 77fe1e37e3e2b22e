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
	"github.com/vouchsafe-cc/vouchsafe/measure/ima"
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
	// IMAList is what the kernel measured of files (package ima), as it stood after
	// the quote; nil if there is none. Ours: the field sends none.
	IMAList []byte
}

// wireEvidence is the JSON of kbs-protocol 16.6. The last three members are
// ours; cc_eventlog is spelled as for the other platforms.
type wireEvidence struct {
	Quote    wireQuote `json:"tpm_quote"`
	AKPublic string    `json:"ak_public"`
	Chain    []string  `json:"ak_certificates,omitempty"`
	EventLog *string   `json:"cc_eventlog,omitempty"`
	IMAList  *string   `json:"ima_list,omitempty"`
}

type wireQuote struct {
	Signature string   `json:"signature"`
	Message   string   `json:"message"`
	PCRs      []string `json:"pcrs"`
}

// ParseEvidence reads the wire form of kbs-protocol 16.6. Unknown members are
// skipped, as the field does; a member that comes twice is an error.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	m, err := splitEvidence(ev)
	if err != nil {
		return nil, err
	}
	return m.evidence()
}

func splitEvidence(ev measure.Evidence) (*members, error) {
	if ev.Platform != measure.TPM {
		return nil, fmt.Errorf("evidence of platform %q given to the TPM parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("TPM evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	m, err := split(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	return m, nil
}

// members are those of evidence, still as text.
type members struct {
	// message and signature are of this quote alone.
	message, signature json.RawMessage
	// All else a machine says again until it reboots or extends a register.
	pcrs, key, chain, log, ima json.RawMessage
}

// split finds the members by their exact names: what differs from a name in
// case is not that member.
func split(data []byte) (*members, error) {
	m := new(members)
	var quote json.RawMessage
	if err := strictjson.Each(data, func(name, value []byte) {
		switch string(name) {
		case "tpm_quote":
			quote = value
		case "ak_public":
			m.key = value
		case "ak_certificates":
			m.chain = value
		case "cc_eventlog":
			m.log = value
		case "ima_list":
			m.ima = value
		}
	}); err != nil {
		return nil, err
	}
	if err := strictjson.EachInner(quote, func(name, value []byte) {
		switch string(name) {
		case "message":
			m.message = value
		case "signature":
			m.signature = value
		case "pcrs":
			m.pcrs = value
		}
	}); err != nil {
		return nil, fmt.Errorf("tpm_quote: %w", err)
	}
	return m, nil
}

// evidence reads everything.
func (m *members) evidence() (*Evidence, error) {
	e := new(Evidence)
	err := m.readQuote(e)
	if err == nil {
		err = m.readLasting(e)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM evidence: %w", err)
	}
	return e, nil
}

// readQuote reads what is new in every piece of evidence.
func (m *members) readQuote(e *Evidence) error {
	var err error
	if e.Message, err = decode("tpm_quote.message", m.message, 4<<10); err != nil {
		return err
	}
	if e.Quote, err = ParseQuote(e.Message); err != nil {
		return err
	}
	signature, err := decode("tpm_quote.signature", m.signature, 2<<10)
	if err != nil {
		return err
	}
	e.Signature, err = ParseSignature(signature)
	return err
}

// readLasting reads the rest.
func (m *members) readLasting(e *Evidence) error {
	var values []string
	if err := json.Unmarshal(m.pcrs, &values); err != nil {
		return errors.New("tpm_quote.pcrs is not a list of strings")
	}
	var err error
	if e.PCRs, err = parseValues(values); err != nil {
		return err
	}
	if e.AKPublic, err = decode("ak_public", m.key, maxKeySize); err != nil {
		return err
	}
	if e.AKCertificates, err = parseChain(m.chain); err != nil {
		return err
	}
	if e.EventLog, err = decodeOptional("cc_eventlog", m.log, eventlog.MaxSize); err != nil {
		return err
	}
	e.IMAList, err = decodeOptional("ima_list", m.ima, ima.MaxSize)
	return err
}

// decodeOptional is decode of a member that may be absent, or null.
func decodeOptional(name string, raw json.RawMessage, limit int) ([]byte, error) {
	if raw == nil || string(raw) == "null" {
		return nil, nil
	}
	return decode(name, raw, limit)
}

func parseChain(raw json.RawMessage) ([][]byte, error) {
	if raw == nil {
		return nil, nil
	}
	var chain []json.RawMessage
	if err := json.Unmarshal(raw, &chain); err != nil {
		return nil, errors.New("ak_certificates is not a list")
	}
	if len(chain) > maxCertificates {
		return nil, fmt.Errorf("ak_certificates has %d entries, at most %d are allowed", len(chain), maxCertificates)
	}
	var out [][]byte
	for _, text := range chain {
		der, err := decode("ak_certificates", text, maxCertificateSize)
		if err != nil {
			return nil, err
		}
		out = append(out, der)
	}
	return out, nil
}

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
	if e.IMAList != nil {
		text := std(e.IMAList)
		w.IMAList = &text
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

// signedBy checks that the key in the evidence signed the quote, which says
// nothing about whose key it is.
func (e *Evidence) signedBy(l *lasting) error {
	if l.keyErr != nil {
		return l.keyErr
	}
	if err := e.Signature.VerifyPrepared(l.key, l.prepared, e.Message); err != nil {
		return fmt.Errorf("the AK did not sign this quote: %w", err)
	}
	return nil
}
