package predict

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// Schema names the form of a [Document].
const Schema = "vouchsafe/prediction/1"

// MaxDocument is the largest document that is read, in bytes.
const MaxDocument = 16 << 20

// Document is a prediction.
type Document struct {
	Schema      string     `json:"schema"`
	Inputs      Described  `json:"inputs"`
	Values      []Value    `json:"values"`
	Unpredicted []Unknown  `json:"unpredicted,omitempty"`
	Boots       []BootPlan `json:"boots,omitempty"`
}

// Described is the inputs of a prediction, by their digests.
type Described struct {
	Image       *File          `json:"image,omitempty"` // of a simulated guest
	Firmware    *FirmwareInput `json:"firmware,omitempty"`
	Edition     string         `json:"edition,omitempty"`
	Kernel      *File          `json:"kernel,omitempty"`
	Initrd      *File          `json:"initrd,omitempty"`
	CommandLine *string        `json:"cmdline,omitempty"`
	UKI         *File          `json:"uki,omitempty"`
	VCPUs       []int          `json:"vcpus,omitempty"`
	Memory      []uint64       `json:"memory,omitempty"` // bytes
	ACPI        []File         `json:"acpi,omitempty"`   // in the order of their measurement
	InitData    *InitData      `json:"init_data,omitempty"`
}

// File is a file that went into a prediction.
type File struct {
	SHA256 string `json:"sha256"` // hexadecimal
	Size   int    `json:"size"`   // bytes
}

// FirmwareInput is a firmware, with what a prediction for other shapes needs of
// it: who holds the document can repeat the prediction of SEV-SNP.
type FirmwareInput struct {
	File
	SNPDigest string      `json:"snp_digest,omitempty"` // see [snp.FirmwareDigest]
	Tail      []byte      `json:"tail,omitempty"`       // the end of the file, with the tables
	TDLayout  *tdx.Layout `json:"td_layout,omitempty"`
}

// InitData is the digest of an init-data document.
type InitData struct {
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"` // hexadecimal
}

// Value is what one register will hold.
type Value struct {
	Platform Platform `json:"platform"`
	Register string   `json:"register"`       // as claims name it
	Bank     string   `json:"bank,omitempty"` // of a PCR: sha256 or sha384
	Value    string   `json:"value"`          // hexadecimal
	// DependsOn names the inputs; nothing else changes the value.
	DependsOn []string `json:"depends_on,omitempty"`
	// When says for which shape the value holds.
	When Shape `json:"when,omitempty"`
}

// Shape is what a value depends on beside files, in words.
type Shape map[string]string

// String returns the shape in a fixed order.
func (s Shape) String() string {
	text := ""
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if text != "" {
			text += ", "
		}
		text += k + " " + s[k]
	}
	return text
}

// Unknown is a register, or a platform, that could not be predicted.
type Unknown struct {
	Platform Platform `json:"platform"`
	Register string   `json:"register,omitempty"`
	Reasons  []string `json:"reasons"`
	When     Shape    `json:"when,omitempty"`
}

// BootPlan is the events that a boot leads to.
type BootPlan struct {
	Platform Platform       `json:"platform"`
	When     Shape          `json:"when,omitempty"`
	Events   []PlannedEvent `json:"events"`
}

// PlannedEvent is one of them, as a log will show it.
type PlannedEvent struct {
	Register string            `json:"register"`
	Type     uint32            `json:"type"`
	Name     string            `json:"name"`
	Input    string            `json:"input"`
	Data     []byte            `json:"data,omitempty"`    // what the log keeps of it
	Digests  map[string]string `json:"digests,omitempty"` // by bank, hexadecimal
	Missing  string            `json:"missing,omitempty"`
}

// Log returns the event log that a boot will leave on a platform that has one.
// It must be planned for one shape, with every event known.
func (d *Document) Log(p Platform) (*eventlog.Log, error) {
	var plans []BootPlan
	for _, b := range d.Boots {
		if b.Platform == p {
			plans = append(plans, b)
		}
	}
	switch {
	case len(plans) == 0:
		return nil, fmt.Errorf("no boot of %s is predicted", p)
	case len(plans) > 1:
		return nil, fmt.Errorf("%d boots of %s are predicted, and a log is of one: (%s), (%s)", len(plans), p, plans[0].When, plans[1].When)
	}
	l := eventlog.NewCCEL()
	if p == TPM {
		var err error
		if l, err = eventlog.New(eventlog.SHA256, eventlog.SHA384); err != nil {
			return nil, err
		}
	}
	for _, e := range plans[0].Events {
		if e.unlogged() {
			continue
		}
		event, err := e.event(p, l.Header.Banks)
		if err != nil {
			return nil, err
		}
		l.Events = append(l.Events, event)
	}
	return l, nil
}

// unlogged reports whether the guest extends this by itself and the firmware's log
// says nothing of it.
func (e PlannedEvent) unlogged() bool {
	return e.Input == string(boot.InitData) || e.Register == pcrName(boot.IMAPCR)
}

// event is a planned event as a log has it.
func (e PlannedEvent) event(p Platform, banks []eventlog.Bank) (eventlog.Event, error) {
	out := eventlog.Event{Type: eventlog.EventType(e.Type), Data: e.Data, Digests: map[eventlog.Algorithm][]byte{}}
	form, shift := "pcr%d", 0
	if p == TDX {
		form, shift = "rtmr_%d", 1
	}
	if _, err := fmt.Sscanf(e.Register, form, &out.Index); err != nil {
		return out, fmt.Errorf("event %q in register %q", e.Name, e.Register)
	}
	out.Index += shift
	for _, b := range banks {
		sum, err := hex.DecodeString(e.Digests[bankName(b.Algorithm)])
		if err != nil || len(sum) != b.Size {
			return out, fmt.Errorf("the event %q is not known in %s: %s", e.Name, b.Algorithm, cmp.Or(e.Missing, "the platform has no such digest"))
		}
		out.Digests[b.Algorithm] = sum
	}
	return out, nil
}

// add appends a value unless it is there already: registers that do not depend
// on a shape are computed once for each.
func (d *Document) add(v Value) {
	same := func(o Value) bool {
		return o.Platform == v.Platform && o.Register == v.Register && o.Bank == v.Bank && o.Value == v.Value && maps.Equal(o.When, v.When)
	}
	if !slices.ContainsFunc(d.Values, same) {
		d.Values = append(d.Values, v)
	}
}

func (d *Document) unknown(p Platform, register string, when Shape, reasons ...string) {
	for _, u := range d.Unpredicted {
		if u.Platform == p && u.Register == register && slices.Equal(u.Reasons, reasons) {
			return
		}
	}
	d.Unpredicted = append(d.Unpredicted, Unknown{p, register, reasons, when})
}

// ParseDocument reads a document that [Make] made.
func ParseDocument(raw []byte) (*Document, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("the prediction is larger than %d bytes", MaxDocument)
	}
	d := new(Document)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("prediction: %w", err)
	}
	if d.Schema != Schema {
		return nil, fmt.Errorf("not a prediction: its schema is %.40q, want %q", d.Schema, Schema)
	}
	if len(d.Values) == 0 {
		return nil, errors.New("the prediction has no values")
	}
	return d, nil
}
