package azure

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Limits on evidence from the wire. Without an event log it has about 14 kB in
// versions 1 and 2, and 50 kB in version 0.
const (
	MaxEvidenceSize = 16 << 20 // bytes of JSON
	maxCertificate  = 16 << 10
	maxTDQuote      = 64 << 10
	maxMessage      = 4 << 10
	maxSignature    = 512
)

// LatestVersion is the newest version of the evidence.
const LatestVersion = 2

// Evidence is a vTPM's quote with the HCL report that vouches for its key.
type Evidence struct {
	Platform measure.Platform // AzSNPvTPM or AzTDXvTPM
	Version  int              // 0, 1 or 2
	Message  []byte           // the TPMS_ATTEST, as it was signed
	Quote    *tpm.Quote
	// Signature is RSASSA with SHA-256, which the wire does not say.
	Signature []byte
	PCRs      [][]byte
	HCL       *HCLReport
	VCEK      []byte // DER, of az-snp-vtpm
	TDQuote   []byte // of az-tdx-vtpm
	EventLog  []byte // nil if there is none
}

// ParseEvidence reads the wire form of kbs-protocol 16.5 in any of its three
// versions, for both platforms. Unknown members are skipped, as the field
// does; a member that comes twice is an error.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	w, err := splitEvidence(ev)
	if err != nil {
		return nil, err
	}
	e := w.evidence(nil)
	if w.err != nil {
		return nil, fmt.Errorf("%s evidence: %w", ev.Platform, w.err)
	}
	return e, nil
}

func splitEvidence(ev measure.Evidence) (*wire, error) {
	if ev.Platform != measure.AzSNPvTPM && ev.Platform != measure.AzTDXvTPM {
		return nil, fmt.Errorf("evidence of platform %q given to Azure's parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("%s evidence has %d bytes, at most %d are allowed", ev.Platform, len(ev.Data), MaxEvidenceSize)
	}
	members, err := strictjson.Members(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("%s evidence: %w", ev.Platform, err)
	}
	w := &wire{platform: ev.Platform, members: members}
	w.version = w.readVersion()
	quote := "tpm_quote"
	if w.version == 0 && ev.Platform == measure.AzSNPvTPM {
		quote = "quote" // the two platforms do not agree about the names
	}
	inner, err := strictjson.Inner(members[quote])
	w.fail(quote, err)
	w.quote = &wire{members: inner}
	if w.err != nil {
		return nil, fmt.Errorf("%s evidence: %w", ev.Platform, w.err)
	}
	return w, nil
}

// evidence reads the members, and of what lasts only what is not known of the
// machine.
func (w *wire) evidence(l *lasting) *Evidence {
	e := &Evidence{Platform: w.platform, Version: w.version}
	if e.Version == 0 {
		e.Message, e.Signature = w.quote.octets("message", maxMessage), w.quote.octets("signature", maxSignature)
		if e.Platform == measure.AzTDXvTPM {
			e.TDQuote = w.octets("td_quote", maxTDQuote)
		}
	} else {
		e.Message = w.quote.decoded("message", maxMessage, plainHex)
		e.Signature = w.quote.decoded("signature", maxSignature, plainHex)
		if e.Platform == measure.AzTDXvTPM {
			e.TDQuote = w.decoded("td_quote", maxTDQuote, url64)
		}
	}
	switch {
	case l != nil:
		l.putInto(e)
	case e.Version == 0:
		w.oldLasting(e)
	default:
		w.readLasting(e)
	}
	w.fail("tpm_quote", w.quote.err)
	if w.err == nil {
		e.Quote, w.err = tpm.ParseQuote(e.Message)
	}
	return e
}

// wire reads members of the evidence. The first failure sticks.
type wire struct {
	platform measure.Platform
	version  int
	members  map[string]json.RawMessage
	quote    *wire // the members of the TPM's quote
	err      error
}

func (w *wire) fail(name string, err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("%s: %w", name, err)
	}
}

// readVersion reads the version; evidence without one is the oldest.
func (w *wire) readVersion() int {
	raw, ok := w.members["version"]
	if !ok {
		return 0
	}
	var v int
	if err := json.Unmarshal(raw, &v); err != nil || v < 0 || v > LatestVersion {
		w.fail("version", fmt.Errorf("%.20s is not one of 0, 1, 2", raw))
	}
	return v
}

// The encodings of members.
func plainHex(text []byte) ([]byte, error) { return hex.AppendDecode(nil, text) }
func url64(text []byte) ([]byte, error)    { return base64.URLEncoding.Strict().AppendDecode(nil, text) }
func std64(text []byte) ([]byte, error)    { return base64.StdEncoding.Strict().AppendDecode(nil, text) }

// readLasting reads versions 1 and 2: hex and padded base64 for URLs.
func (w *wire) readLasting(e *Evidence) {
	for i, raw := range w.quote.values() {
		text, err := strictjson.Text(raw)
		if err == nil && len(text) > 2*64 {
			err = errors.New("too long")
		}
		var v []byte
		if err == nil {
			v, err = plainHex(text)
		}
		w.quote.fail(fmt.Sprintf("pcrs: %d", i), err)
		e.PCRs = append(e.PCRs, v)
	}
	w.hcl(e, w.decoded("hcl_report", maxHCL, url64))
	if e.Platform == measure.AzSNPvTPM {
		e.VCEK = w.decoded("vcek", maxCertificate, url64)
	}
	if log, ok := w.members["cc_eventlog"]; ok && string(log) != "null" {
		e.EventLog = w.decoded("cc_eventlog", eventlog.MaxSize, std64)
	}
}

// oldLasting reads version 0: lists of numbers, and the VCEK in PEM.
func (w *wire) oldLasting(e *Evidence) {
	for _, raw := range w.quote.values() {
		v, err := parseOctets(raw, 64)
		w.quote.fail("pcrs", err)
		e.PCRs = append(e.PCRs, v)
	}
	w.hcl(e, w.octets(w.hclName(), maxHCL))
	if e.Platform == measure.AzTDXvTPM {
		return
	}
	text := w.decoded("vcek", maxCertificate, func(text []byte) ([]byte, error) { return text, nil })
	block, _ := pem.Decode(text) // its issuers may follow; the verifier has its own
	if block == nil || block.Type != "CERTIFICATE" {
		w.fail("vcek", errors.New("not a certificate in PEM"))
		return
	}
	e.VCEK = block.Bytes
}

// hclName is the name of the HCL report, which the platforms did not agree about
// in version 0.
func (w *wire) hclName() string {
	if w.version == 0 && w.platform == measure.AzSNPvTPM {
		return "report"
	}
	return "hcl_report"
}

func (w *wire) hcl(e *Evidence, raw []byte) {
	if w.err != nil {
		return
	}
	var err error
	e.HCL, err = ParseHCL(raw)
	w.fail("HCL report", err)
}

// values reads the list of PCRs, of which one more than there can be is enough
// to be refused.
func (w *wire) values() []json.RawMessage {
	var list []json.RawMessage
	if err := json.Unmarshal(w.members["pcrs"], &list); err != nil || list == nil {
		w.fail("pcrs", errors.New("not a list"))
	}
	return list[:min(len(list), tpm.PCRs+1)]
}

// decoded reads a string of 1 to limit bytes in some encoding.
func (w *wire) decoded(name string, limit int, decode func([]byte) ([]byte, error)) []byte {
	text, err := strictjson.Text(w.members[name])
	if err != nil {
		w.fail(name, errors.New("not a string"))
		return nil
	}
	b, err := decode(text)
	if err != nil || len(b) == 0 || len(b) > limit {
		w.fail(name, fmt.Errorf("not an encoding of 1 to %d bytes", limit))
		return nil
	}
	return b
}

func (w *wire) octets(name string, limit int) []byte {
	b, err := parseOctets(w.members[name], limit)
	w.fail(name, err)
	return b
}

// parseOctets reads a list of 1 to limit numbers.
func parseOctets(raw json.RawMessage, limit int) ([]byte, error) {
	var list []uint16
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 || len(list) > limit {
		return nil, fmt.Errorf("not a list of 1 to %d bytes", limit)
	}
	out := make([]byte, len(list))
	for i, n := range list {
		if n > 0xff {
			return nil, fmt.Errorf("%d is not a byte", n)
		}
		out[i] = byte(n)
	}
	return out, nil
}

// Wire returns the evidence in the newest form that [ParseEvidence] reads.
func (e *Evidence) Wire() (measure.Evidence, error) {
	type quote struct {
		Signature string   `json:"signature"`
		Message   string   `json:"message"`
		PCRs      []string `json:"pcrs"`
	}
	w := struct {
		Version  int    `json:"version"`
		Quote    quote  `json:"tpm_quote"`
		HCL      string `json:"hcl_report"`
		VCEK     string `json:"vcek,omitempty"`
		TDQuote  string `json:"td_quote,omitempty"`
		EventLog string `json:"cc_eventlog,omitempty"`
	}{
		Version: max(e.Version, 1),
		Quote:   quote{Signature: hex.EncodeToString(e.Signature), Message: hex.EncodeToString(e.Message), PCRs: []string{}},
		HCL:     base64.URLEncoding.EncodeToString(e.HCL.Marshal()),
		VCEK:    base64.URLEncoding.EncodeToString(e.VCEK), TDQuote: base64.URLEncoding.EncodeToString(e.TDQuote),
		EventLog: base64.StdEncoding.EncodeToString(e.EventLog),
	}
	for _, v := range e.PCRs {
		w.Quote.PCRs = append(w.Quote.PCRs, hex.EncodeToString(v))
	}
	data, err := json.Marshal(w)
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("encode %s evidence: %w", e.Platform, err)
	}
	return measure.Evidence{Platform: e.Platform, Data: data}, nil
}
