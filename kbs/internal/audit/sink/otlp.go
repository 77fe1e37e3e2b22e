package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
)

// OTLP sends log records to a receiver of OpenTelemetry (OTLP/HTTP with JSON,
// OTLP 1.x): a collector, or what stores logs.
type OTLP struct {
	HTTP // the URL ends in /v1/logs

	Source ocsf.Source
	Format Format // of the body
}

// The members of an export request that are used (opentelemetry-proto,
// collector/logs/v1). 64-bit integers are texts in its JSON form.
type (
	otlpRequest struct {
		ResourceLogs []otlpResource `json:"resourceLogs"`
	}
	otlpResource struct {
		Resource  otlpAttributes `json:"resource"`
		ScopeLogs []otlpScope    `json:"scopeLogs"`
	}
	otlpScope struct {
		Scope      otlpName     `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpName struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	otlpAttributes struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpRecord struct {
		TimeUnixNano   string          `json:"timeUnixNano"`
		SeverityNumber int             `json:"severityNumber"`
		SeverityText   string          `json:"severityText"`
		EventName      string          `json:"eventName"`
		Body           otlpValue       `json:"body"`
		Attributes     []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

func otlpText(key, value string) otlpAttribute {
	return otlpAttribute{key, otlpValue{String: &value}}
}

func otlpNumber(key string, n int64) otlpAttribute {
	text := strconv.FormatInt(n, 10)
	return otlpAttribute{key, otlpValue{Int: &text}}
}

// Deliver implements [Sink].
func (s *OTLP) Deliver(ctx context.Context, batch []Event) error {
	records := make([]otlpRecord, len(batch))
	for i, e := range batch {
		var err error
		if records[i], err = s.record(e); err != nil {
			return err
		}
	}
	body, err := json.Marshal(otlpRequest{[]otlpResource{{
		Resource: otlpAttributes{[]otlpAttribute{
			otlpText("service.name", "vouchsafe-kbs"), otlpText("service.version", s.Source.Version), otlpText("audit.log", s.Source.Log),
		}},
		ScopeLogs: []otlpScope{{Scope: otlpName{"vouchsafe.audit", ocsf.Version}, LogRecords: records}},
	}}})
	if err != nil {
		return err
	}
	answer, err := s.post(ctx, body, nil)
	if err != nil {
		return err
	}
	return rejected(answer, len(batch))
}

func (s *OTLP) record(e Event) (otlpRecord, error) {
	text, err := s.Format(e)
	if err != nil {
		return otlpRecord{}, err
	}
	body := string(text)
	o := s.Source.Event(e.Entry, nil)
	number := map[int]int{1: 9, 2: 10, 3: 13, 4: 17}[o.SeverityID] // INFO, INFO2, WARN, ERROR
	r := otlpRecord{
		TimeUnixNano:   strconv.FormatInt(e.Entry.Time.UnixNano(), 10),
		SeverityNumber: number, SeverityText: o.Severity, EventName: "audit." + o.Metadata.EventCode,
		Body: otlpValue{String: &body},
		Attributes: []otlpAttribute{
			otlpNumber("audit.index", e.Entry.Index), otlpText("audit.kind", o.Metadata.EventCode),
			otlpText("audit.decision", e.Entry.Decision), otlpText("audit.tenant", o.Metadata.TenantUID),
		},
	}
	for _, m := range [...]struct{ key, value string }{
		{"audit.code", e.Entry.Code}, {"audit.ticket", e.Entry.Ticket}, {"audit.subject", e.Entry.Subject}, {"audit.object", e.Entry.Object},
	} {
		if m.value != "" {
			r.Attributes = append(r.Attributes, otlpText(m.key, m.value))
		}
	}
	return r, nil
}

// rejected reads the answer to an export. OTLP wants rejected records to be
// dropped by the client; an audit log drops nothing, so they come again, in
// smaller and smaller batches.
func rejected(answer []byte, sent int) error {
	var a struct {
		PartialSuccess struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"`
			Message  string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("the answer is not that of an OTLP receiver: %w", err)
	}
	switch n := string(a.PartialSuccess.Rejected); n {
	case "", "0", `"0"`, "null":
		return nil
	default:
		err := fmt.Errorf("the receiver rejected %s of %d records: %.200q", n, sent, a.PartialSuccess.Message)
		if sent > 1 {
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		return err
	}
}
