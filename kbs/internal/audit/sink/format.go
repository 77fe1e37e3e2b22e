package sink

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
)

// Format writes an event on one line, without its end.
type Format func(Event) ([]byte, error)

// AsEntry writes the entry as it was hashed: a file of these verifies with
// `kbsctl audit verify --file`.
func AsEntry(e Event) ([]byte, error) { return e.Leaf, nil }

// AsOCSF returns the format of package ocsf.
func AsOCSF(s ocsf.Source) Format {
	return func(e Event) ([]byte, error) { return json.Marshal(s.Event(e.Entry, e.Leaf)) }
}

var (
	cefHeader = strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\n", " ", "\r", " ")
	cefValue  = strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)
)

// AsCEF returns the common event format, version 0, for syslog receivers that
// know no other.
func AsCEF(s ocsf.Source) Format {
	severity := map[int]int{1: 1, 2: 3, 3: 6, 4: 8}
	return func(e Event) ([]byte, error) {
		o := s.Event(e.Entry, nil)
		line := fmt.Appendf(nil, "CEF:0|%s|%s|%s|%s|%s|%d|", o.Metadata.Product.VendorName, o.Metadata.Product.Name,
			cefHeader.Replace(s.Version), cefHeader.Replace(o.Metadata.EventCode), cefHeader.Replace(o.Message), severity[o.SeverityID])
		line = fmt.Appendf(line, "rt=%d externalId=%d outcome=%s", o.Time, o.Metadata.Sequence, strings.ToLower(o.Status))
		for _, m := range [...]struct{ name, value string }{
			{"act", e.Entry.Decision}, {"suser", e.Entry.Subject}, {"request", e.Entry.Object}, {"reason", e.Entry.Code},
			{"cs1Label=ticket cs1", e.Entry.Ticket}, {"cs2Label=tenant cs2", o.Metadata.TenantUID}, {"cs3Label=log cs3", s.Log},
		} {
			if m.value != "" {
				line = fmt.Appendf(line, " %s=%s", m.name, cefValue.Replace(m.value))
			}
		}
		return line, nil
	}
}
