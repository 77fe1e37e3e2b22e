package predict

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Seen is what a guest measured, as its evidence or its event log tells. It is
// not verified: whether evidence is genuine is for package measure's verifiers.
type Seen struct {
	Platform  Platform
	Registers map[string]string // by register, PCRs with their bank behind a slash; hexadecimal
	Log       *eventlog.Log     // nil if there is none
}

// ReadSeen reads evidence as the KBS protocol carries it (SEV-SNP, TDX, TPM), a
// raw SEV-SNP report, a raw TDX quote, or an event log: that of a TPM or a CCEL.
func ReadSeen(raw []byte) (*Seen, error) {
	switch {
	case len(raw) > 0 && raw[0] == '{':
		return seenJSON(raw)
	case len(raw) == snp.ReportSize:
		r, err := snp.ParseReport(raw)
		if err != nil {
			return nil, err
		}
		return seenSNP(r), nil
	}
	if q, err := dcap.ParseQuote(raw); err == nil {
		return seenTDX(q)
	}
	l, err := eventlog.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("neither evidence nor an event log: %w", err)
	}
	return SeenLog(l)
}

// SeenLog is what an event log says by itself: the registers that it leads to.
func SeenLog(l *eventlog.Log) (*Seen, error) {
	s := &Seen{Platform: TPM, Registers: map[string]string{}, Log: l}
	banks := []eventlog.Algorithm{eventlog.SHA256, eventlog.SHA384}
	if l.Header == nil {
		return nil, errors.New("a log of the TPM 1.2 form has no bank that is predicted")
	}
	if l.Header.Index != 0 {
		s.Platform, banks = TDX, []eventlog.Algorithm{eventlog.SHA384}
	}
	for _, alg := range banks {
		registers, err := l.Replay(alg)
		if err != nil {
			continue // a bank that the log does not have
		}
		for i, value := range registers {
			if name := s.register(i, alg); name != "" {
				s.Registers[name] = hex.EncodeToString(value)
			}
		}
	}
	if len(s.Registers) == 0 {
		return nil, errors.New("the log has no bank that is predicted")
	}
	return s, nil
}

// register names a register of a log; "" for those that are not predicted.
func (s *Seen) register(index int, alg eventlog.Algorithm) string {
	const firstMR, lastMR, lastPCR = 1, 4, 15
	switch {
	case s.Platform == TDX && index >= firstMR && index <= lastMR:
		return fmt.Sprintf("rtmr_%d", index-firstMR)
	case s.Platform == TPM && index >= 0 && index <= lastPCR:
		return pcrName(index) + "/" + bankName(alg)
	}
	return ""
}

// AddLog adds the event log that belongs to the evidence. A log that does not
// lead to the registers of the evidence is refused: it explains nothing.
func (s *Seen) AddLog(l *eventlog.Log) error {
	logged, err := SeenLog(l)
	if err != nil {
		return err
	}
	if logged.Platform != s.Platform {
		return fmt.Errorf("the evidence is of %s and the log of %s", s.Platform, logged.Platform)
	}
	for name, value := range logged.Registers {
		if seen, ok := s.Registers[name]; ok && seen != value {
			return fmt.Errorf("the log leads to %s = %s, and the evidence has %s: it is not the log of this boot", name, value, seen)
		}
	}
	s.Log = l
	return nil
}

func seenSNP(r *snp.Report) *Seen {
	return &Seen{Platform: SNP, Registers: map[string]string{
		regMeasurement: hex.EncodeToString(r.Measurement[:]), "host_data": hex.EncodeToString(r.HostData[:]),
	}}
}

// Offsets in the body of a quote (kbs-protocol 16.3).
const (
	bodyMRTD     = 136
	bodyConfigID = 184
	bodyRTMR0    = 328
	digestSize   = 48
)

func seenTDX(q *dcap.Quote) (*Seen, error) {
	if q.BodyType == dcap.BodySGX || len(q.Body) < bodyRTMR0+4*digestSize {
		return nil, errors.New("a quote of SGX, which is not predicted")
	}
	field := func(at int) string { return hex.EncodeToString(q.Body[at : at+digestSize]) }
	s := &Seen{Platform: TDX, Registers: map[string]string{regMRTD: field(bodyMRTD), "mr_config_id": field(bodyConfigID)}}
	for i := range 4 {
		s.Registers[fmt.Sprintf("rtmr_%d", i)] = field(bodyRTMR0 + i*digestSize)
	}
	return s, nil
}

func seenJSON(raw []byte) (*Seen, error) {
	members, err := strictjson.Members(raw)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if _, ok := members["attestation_report"]; ok {
		e, err := snp.ParseEvidence(measure.Evidence{Platform: measure.SNP, Data: raw})
		if err != nil {
			return nil, err
		}
		return seenSNP(e.Report), nil
	}
	if _, ok := members["tpm_quote"]; ok {
		return seenTPM(raw)
	}
	var e struct {
		Quote string `json:"quote"`
		Log   string `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(raw, &e); err != nil || e.Quote == "" {
		return nil, errors.New("this is no evidence of SEV-SNP, TDX or a TPM")
	}
	quote, err := base64.StdEncoding.DecodeString(e.Quote)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	q, err := dcap.ParseQuote(quote)
	if err != nil {
		return nil, err
	}
	s, err := seenTDX(q)
	if err != nil || e.Log == "" {
		return s, err
	}
	log, err := base64.StdEncoding.DecodeString(e.Log)
	if err != nil {
		return nil, fmt.Errorf("cc_eventlog: %w", err)
	}
	l, err := eventlog.Parse(log)
	if err != nil {
		return nil, err
	}
	return s, s.AddLog(l)
}

func seenTPM(raw []byte) (*Seen, error) {
	var e struct {
		Quote struct {
			PCRs []string `json:"pcrs"`
		} `json:"tpm_quote"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	const count = 24
	if len(e.Quote.PCRs) != count {
		return nil, fmt.Errorf("evidence of a TPM with %d PCRs, want %d", len(e.Quote.PCRs), count)
	}
	s := &Seen{Platform: TPM, Registers: map[string]string{}}
	for i, text := range e.Quote.PCRs {
		value, err := hex.DecodeString(text)
		if err != nil || len(value) != eventlog.SHA256.Size() {
			return nil, fmt.Errorf("PCR %d is no SHA-256 digest", i)
		}
		if name := s.register(i, eventlog.SHA256); name != "" {
			s.Registers[name] = hex.EncodeToString(value)
		}
	}
	return s, nil
}
