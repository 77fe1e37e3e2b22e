package sgx

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxEvidenceSize bounds evidence from the wire in bytes of JSON.
const MaxEvidenceSize = dcap.MaxQuoteSize/3*4 + 4096

// Evidence is a quote.
type Evidence struct {
	Quote []byte
}

// Recognise reports whether raw bytes start like an SGX quote.
func Recognise(raw []byte) bool {
	return len(raw) >= 8 && bytes.Equal(raw[:2], []byte{3, 0}) && bytes.Equal(raw[4:8], make([]byte, 4))
}

// ParseEvidence reads the wire form of kbs-protocol 16.4. Unknown members are
// skipped, as the field does, and a member that comes twice is an error.
func ParseEvidence(ev measure.Evidence) (*Evidence, error) {
	if ev.Platform != measure.SGX {
		return nil, fmt.Errorf("evidence of platform %q given to the SGX parser", ev.Platform)
	}
	if len(ev.Data) > MaxEvidenceSize {
		return nil, fmt.Errorf("SGX evidence has %d bytes, at most %d are allowed", len(ev.Data), MaxEvidenceSize)
	}
	members, err := strictjson.Members(ev.Data)
	if err != nil {
		return nil, fmt.Errorf("SGX evidence: %w", err)
	}
	e := new(Evidence)
	if err := json.Unmarshal(members["quote"], &e.Quote); err != nil || e.Quote == nil {
		return nil, errors.New("SGX evidence: quote: not base64")
	}
	return e, nil
}

// Wire returns the evidence in the form that [ParseEvidence] reads.
func (e *Evidence) Wire() (measure.Evidence, error) {
	data, err := json.Marshal(struct {
		Quote []byte `json:"quote"`
	}{e.Quote})
	if err != nil {
		return measure.Evidence{}, fmt.Errorf("encode SGX evidence: %w", err)
	}
	return measure.Evidence{Platform: measure.SGX, Data: data}, nil
}

// Claims returns what evidence claims, whether or not it is true: the claims
// of kbs-protocol 16.4 that the quote makes. Those that rest on collateral
// come with a verdict only.
func (e *Evidence) Claims() (measure.Claims, error) {
	q, r, err := parseQuote(e.Quote)
	if err != nil {
		return nil, err
	}
	c := measure.Claims{}
	addClaims(c, q, r)
	return c, nil
}

func parseQuote(raw []byte) (*dcap.Quote, *dcap.EnclaveReport, error) {
	q, err := dcap.ParseQuote(raw)
	if err != nil {
		return nil, nil, err
	}
	if q.BodyType != dcap.BodySGX {
		return nil, nil, errors.New("this is the quote of a TD")
	}
	r, err := dcap.ParseEnclaveReport(q.Body)
	return q, r, err
}

func addClaims(c measure.Claims, q *dcap.Quote, r *dcap.EnclaveReport) {
	c["header"] = q.Header.Claims()
	c["body"] = r.Claims()
	c["report_data"] = hex.EncodeToString(r.ReportData[:])
	c["init_data"] = hex.EncodeToString(r.ConfigID[:])
	c["debug"] = r.Attributes.Debug() // ours: one bit of attributes.flags
}
