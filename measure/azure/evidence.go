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
	w := wire{members: members}
	e := &Evidence{Platform: ev.Platform, Version: w.version()}
	if e.Version == 0 {
		w.old(e)
	} else {
		w.text(e)
	}
	if w.err == nil {
		e.Quote, w.err = tpm.ParseQuote(e.Message)
	}
	if w.err != nil {
		return nil, fmt.Errorf("%s evidence: %w", ev.Platform, w.err)
	}
	return e, nil
}

// wire reads members of the evidence. The first failure sticks.
type wire struct {
	members map[string]json.RawMessage
	err     error
}

func (w *wire) fail(name string, err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("%s: %w", name, err)
	}
}

// version reads the version; evidence without one is the oldest.
func (w *wire) version() int {
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

// text reads versions 1 and 2: hex and padded base64 for URLs.
func (w *wire) text(e *Evidence) {
	q := w.object("tpm_quote")
	e.Message = q.decoded("message", maxMessage, plainHex)
	e.Signature = q.decoded("signature", maxSignature, plainHex)
	for i, raw := range q.values() {
		text, err := strictjson.Text(raw)
		if err == nil && len(text) > 2*64 {
			err = errors.New("too long")
		}
		var v []byte
		if err == nil {
			v, err = plainHex(text)
		}
		q.fail(fmt.Sprintf("pcrs: %d", i), err)
		e.PCRs = append(e.PCRs, v)
	}
	w.fail("tpm_quote", q.err)
	w.hcl(e, w.decoded("hcl_report", maxHCL, url64))
	if e.Platform == measure.AzSNPvTPM {
		e.VCEK = w.decoded("vcek", maxCertificate, url64)
	} else {
		e.TDQuote = w.decoded("td_quote", maxTDQuote, url64)
	}
	if log, ok := w.members["cc_eventlog"]; ok && string(log) != "null" {
		e.EventLog = w.decoded("cc_eventlog", eventlog.MaxSize, std64)
	}
}

// old reads version 0: lists of numbers, and the VCEK in PEM. The two platforms
// do not agree about the names.
func (w *wire) old(e *Evidence) {
	quote, report := "tpm_quote", "hcl_report"
	if e.Platform == measure.AzSNPvTPM {
		quote, report = "quote", "report"
	}
	q := w.object(quote)
	e.Message, e.Signature = q.octets("message", maxMessage), q.octets("signature", maxSignature)
	for _, raw := range q.values() {
		v, err := parseOctets(raw, 64)
		q.fail("pcrs", err)
		e.PCRs = append(e.PCRs, v)
	}
	w.fail(quote, q.err)
	w.hcl(e, w.octets(report, maxHCL))
	if e.Platform == measure.AzTDXvTPM {
		e.TDQuote = w.octets("td_quote", maxTDQuote)
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

func (w *wire) hcl(e *Evidence, raw []byte) {
	if w.err != nil {
		return
	}
	var err error
	e.HCL, err = ParseHCL(raw)
	w.fail("HCL report", err)
}

func (w *wire) object(name string) *wire {
	members, err := strictjson.Inner(w.members[name])
	w.fail(name, err)
	return &wire{members: members}
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
