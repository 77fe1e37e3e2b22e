package predict

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// Comparison is what [Diff] finds.
type Comparison struct {
	Platform Platform `json:"platform"`
	// Same are the registers that hold what was predicted, and for which shape.
	Same []Match `json:"same,omitempty"`
	// Differences are empty if nothing contradicts the prediction.
	Differences []Difference `json:"differences,omitempty"`
	// NotCompared are registers of the guest that the prediction says nothing
	// about, with the reason where there is one.
	NotCompared []Unknown `json:"not_compared,omitempty"`
}

// Match is a register that holds what was predicted.
type Match struct {
	Register string `json:"register"`
	When     Shape  `json:"when,omitempty"`
}

// Difference is something that is not as predicted.
type Difference struct {
	Register string `json:"register"`
	// Inputs are those that differ, or one of which does, as far as it is known.
	Inputs    []string `json:"inputs"`
	Text      string   `json:"text"` // in words
	Predicted []string `json:"predicted,omitempty"`
	Seen      string   `json:"seen,omitempty"`
}

// Candidate is a file, or a command line, that the guest may have been started
// with instead of the predicted one.
type Candidate struct {
	Input boot.Input // Image, Firmware, Kernel, Initrd, CommandLine, UKI, ACPI or InitData
	Name  string     // of the file, for the answer
	Data  []byte
}

// Diff compares a prediction with what a guest measured, and says what differs.
// Candidates are tried where something does.
func Diff(d *Document, s *Seen, candidates []Candidate) (*Comparison, error) {
	if !slices.ContainsFunc(d.Values, func(v Value) bool { return v.Platform == s.Platform }) {
		return nil, fmt.Errorf("the prediction has no value of %s", s.Platform)
	}
	c := &Comparison{Platform: s.Platform}
	x := &explainer{doc: d, seen: s, candidates: candidates, out: c}
	differ := x.registers()
	switch {
	case len(differ) == 0:
		return c, nil
	case s.Platform == SNP:
		x.launch(differ)
	case s.Log != nil:
		logged, unlogged := x.split(differ)
		if len(logged) > 0 {
			x.events(logged)
		}
		x.unexplained(unlogged, "")
	default:
		x.unexplained(differ, "the event log would tell which event differs")
	}
	return c, nil
}

// explainer finds out why registers differ.
type explainer struct {
	doc        *Document
	seen       *Seen
	candidates []Candidate
	out        *Comparison
}

// registers sorts the registers of the guest into those that are as predicted
// and those that are not; the latter are returned.
func (x *explainer) registers() []string {
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(x.seen.Registers)) {
		predicted := x.doc.of(x.seen.Platform, name)
		if len(predicted) == 0 {
			x.notCompared(name)
			continue
		}
		i := slices.IndexFunc(predicted, func(v Value) bool { return v.Value == x.seen.Registers[name] })
		if i < 0 {
			differ = append(differ, name)
			continue
		}
		x.out.Same = append(x.out.Same, Match{name, predicted[i].When})
	}
	return differ
}

func (x *explainer) notCompared(name string) {
	u := Unknown{Platform: x.seen.Platform, Register: name, Reasons: []string{"the prediction does not have it"}}
	register, _, _ := strings.Cut(name, "/")
	for _, p := range x.doc.Unpredicted {
		if p.Platform == x.seen.Platform && p.Register == register {
			u.Reasons = p.Reasons
		}
	}
	x.out.NotCompared = append(x.out.NotCompared, u)
}

// of returns the values of a register; that of a PCR has its bank behind a
// slash.
func (d *Document) of(p Platform, name string) []Value {
	register, bank, _ := strings.Cut(name, "/")
	var out []Value
	for _, v := range d.Values {
		if v.Platform == p && v.Register == register && v.Bank == bank {
			out = append(out, v)
		}
	}
	return out
}

// split tells the registers that the log explains from those that it says nothing
// of: MRTD, the field of the init-data, and what the guest extends by itself (PCR 8
// with its init-data, PCR 10 with IMA's own list).
func (x *explainer) split(differ []string) (logged, unlogged []string) {
	for _, name := range differ {
		register, _, _ := strings.Cut(name, "/")
		bare := strings.Trim(x.seen.Registers[name], "0") == ""
		byGuest := slices.Equal(x.difference(name).Inputs, []string{string(boot.InitData)})
		if !byGuest && (bare || len(x.seenEvents(register)) > 0) {
			logged = append(logged, name)
		} else {
			unlogged = append(unlogged, name)
		}
	}
	return logged, unlogged
}

// unexplained reports registers of which only what they depend on is known.
func (x *explainer) unexplained(differ []string, hint string) {
	for _, name := range differ {
		d := x.difference(name)
		if x.initData(&d) || x.builtFirmware(&d) {
			continue
		}
		d.Text = fmt.Sprintf("%s differs; it depends on %s", name, words(d.Inputs, "and"))
		if hint != "" && len(d.Inputs) != 1 {
			d.Text += "; " + hint
		}
		x.out.Differences = append(x.out.Differences, d)
	}
}

// initData explains a field that holds the digest of the init-data.
func (x *explainer) initData(d *Difference) bool {
	if !slices.Equal(d.Inputs, []string{string(boot.InitData)}) {
		return false
	}
	d.Text = d.Register + ": the init-data differs"
	raw, err := hex.DecodeString(d.Seen)
	if err == nil && !slices.ContainsFunc(raw, func(b byte) bool { return b != 0 }) {
		d.Text += ": the guest has none"
	}
	for _, c := range x.candidates {
		if c.Input != boot.InitData {
			continue
		}
		doc, err := initdata.Parse(c.Data)
		if err == nil && slices.ContainsFunc(x.boundTo(doc), func(v Value) bool { return registerName(v) == d.Register && v.Value == d.Seen }) {
			d.Text += ": it is " + c.Name
		}
	}
	x.out.Differences = append(x.out.Differences, *d)
	return true
}

// boundTo are the values that a document leads to on the platform.
func (x *explainer) boundTo(doc *initdata.Document) []Value {
	d := new(Document)
	d.bind(doc, []Platform{x.seen.Platform})
	return d.Values
}

// builtFirmware explains MRTD, which goes over the firmware alone.
func (x *explainer) builtFirmware(d *Difference) bool {
	if d.Register != regMRTD {
		return false
	}
	d.Text = regMRTD + " differs: the firmware differs"
	for _, c := range x.candidates {
		if c.Input != boot.Firmware {
			continue
		}
		f, err := ovmf.Parse(c.Data)
		if err != nil {
			continue
		}
		for _, order := range []tdx.BuildOrder{tdx.SinglePass, tdx.TwoPass} {
			if mrtd, err := tdx.MRTD(f, order); err == nil && hex.EncodeToString(mrtd[:]) == d.Seen {
				d.Text += fmt.Sprintf(": it is %s (built in the order %s)", c.Name, order)
			}
		}
	}
	x.out.Differences = append(x.out.Differences, *d)
	return true
}

// difference is what is known of a register without looking closer.
func (x *explainer) difference(name string) Difference {
	d := Difference{Register: name, Seen: x.seen.Registers[name]}
	for _, v := range x.doc.of(x.seen.Platform, name) {
		d.Predicted = append(d.Predicted, v.Value)
		for _, in := range v.DependsOn {
			if !slices.Contains(d.Inputs, in) {
				d.Inputs = append(d.Inputs, in)
			}
		}
	}
	return d
}

// inWords are the inputs as a person calls them.
var inWords = map[string]string{
	"image": "the image", "cmdline": "the command line", "firmware": "the firmware", "kernel": "the kernel", "initrd": "the initrd",
	"memory": "the size of memory", "vcpus": "the number of vCPUs", "cpu": "the processor model", "features": "the guest features",
	"acpi": "the ACPI tables (number of vCPUs, memory, devices, version of QEMU)", "smbios": "the SMBIOS tables", "variables": "the firmware's variables (Secure Boot)",
	"boot_variables": "the boot options (devices)", "uki": "the unified kernel image", "disk": "the disk's partition table", "init_data": "the init-data",
	"phase": "how far the system had booted", "runtime": "what happened after the boot", "fixed": "a fixed event", "vmm": "the VMM",
}

// differs says that inputs differ; if there are several, one of them does at
// least.
func differs(inputs []string) string {
	switch len(inputs) {
	case 0:
		return "nothing that was given differs"
	case 1:
		verb := "differs"
		if slices.Contains([]string{"acpi", "smbios", "variables", "boot_variables", "features"}, inputs[0]) {
			verb = "differ"
		}
		return words(inputs, "") + " " + verb
	}
	return words(inputs, "or") + " differs"
}

// words joins inputs into a phrase.
func words(inputs []string, last string) string {
	var out []string
	for _, in := range inputs {
		if text, ok := inWords[in]; ok {
			in = text
		}
		out = append(out, in)
	}
	switch len(out) {
	case 0:
		return "nothing that was given"
	case 1:
		return out[0]
	}
	return strings.Join(out[:len(out)-1], ", ") + " " + last + " " + out[len(out)-1]
}
