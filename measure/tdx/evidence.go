package tdx

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxEvidenceSize bounds evidence from the wire in bytes of JSON: a quote and
// the largest event log, in base64.
const MaxEvidenceSize = (eventlog.MaxSize+dcap.MaxQuoteSize)/3*4 + 4096

// Evidence is a quote with the event log that came along.
type Evidence struct {
	Quote []byte
	// EventLog is CCEL and AAEL (guest-protocol 6.5); nil if there is none.
	EventLog []byte
}

// Recognise reports whether raw bytes start like a TDX quote.
func Recognise(raw []byte) bool {
	return len(raw) >= 8 && (raw[0] == 4 || raw[0] == 5) && raw[1] == 0 && bytes.Equal(raw[4:8], []byte{0x81, 0, 0, 0})
}

// ParseEvidence reads the wire form of kbs-protocol 16.3. Unknown members are
// skipped, as the field does, and a member that comes twice is an error. One
// that is skipped is aa_eventlog, the text that agents kept before they wrote
// their events into cc_eventlog: what it says is no claim, and what they
// extended by it is then missing in the replay.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	if ev.Platform != measure.TDX {
		return nil, fmt.Errorf("evidence of platform %q given to the TDX parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("TDX evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	members, err := strictjson.Members(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("TDX evidence: %w", err)
	}
	e := new(Evidence)
	if e.Quote, err = decode(members["quote"], dcap.MaxQuoteSize); err != nil || e.Quote == nil {
		return nil, fmt.Errorf("TDX evidence: quote: %w", errors.Join(err, missing(e.Quote)))
	}
	if e.EventLog, err = decode(members["cc_eventlog"], eventlog.MaxSize); err != nil {
		return nil, fmt.Errorf("TDX evidence: cc_eventlog: %w", err)
	}
	return e, nil
}

func missing(b []byte) error {
	if b == nil {
		return errors.New("missing")
	}
	return nil
}

// decode reads a string of base64; null and absence give nil. It looks at the
// text as it stands, for the standard library would copy it twice.
func decode(raw json.RawMessage, limit int) ([]byte, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, errors.New("not a string")
	}
	text := raw[1 : len(raw)-1]
	if base64.StdEncoding.DecodedLen(len(text)) > limit+2 {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(out, text)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return out[:n], nil
}

// Wire returns the evidence in the form that [ParseEvidence] reads.
func (e *Evidence) Wire() (measure.Evidence, error) {
	data, err := json.Marshal(struct {
		Log   []byte `json:"cc_eventlog"` // null if nil
		Quote []byte `json:"quote"`
	}{e.EventLog, e.Quote})
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("encode TDX evidence: %w", err)
	}
	return measure.Evidence{Platform: measure.TDX, Data: data}, nil
}
