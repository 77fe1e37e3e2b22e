package predict

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// events explains registers by the event log: the boot plan that fits best is
// laid beside it, register by register.
func (x *explainer) events(differ []string) {
	var best []Difference
	found := false
	explained := map[string]bool{}
	for _, plan := range x.doc.Boots {
		if plan.Platform != x.seen.Platform {
			continue
		}
		got := x.comparePlan(plan, differ)
		if !found || len(got) < len(best) {
			best, found = got, true
		}
	}
	for _, d := range best {
		explained[d.Register] = true
	}
	x.out.Differences = append(x.out.Differences, best...)
	// What no log explains: MRTD, which no event leads to.
	rest := slices.DeleteFunc(slices.Clone(differ), func(name string) bool {
		register, _, _ := strings.Cut(name, "/")
		return explained[register]
	})
	x.unexplained(rest, "")
}

// comparePlan compares the events of the registers that differ.
func (x *explainer) comparePlan(plan BootPlan, differ []string) []Difference {
	var out []Difference
	done := map[string]bool{}
	for _, name := range differ {
		register, bank, _ := strings.Cut(name, "/")
		if x.seen.Platform == TDX {
			bank = bankName(eventlog.SHA384)
		}
		if done[register] {
			continue // in another bank
		}
		done[register] = true
		var predicted []PlannedEvent
		for _, e := range plan.Events {
			if e.Register == register {
				predicted = append(predicted, e)
			}
		}
		out = append(out, x.compareEvents(register, bank, predicted, x.seenEvents(register))...)
	}
	return out
}

func (x *explainer) seenEvents(register string) []eventlog.Event {
	var out []eventlog.Event
	for _, e := range x.seen.Log.Events {
		if e.Type == eventlog.NoAction {
			continue
		}
		name, _, _ := strings.Cut(x.seen.register(e.Index, eventlog.SHA256), "/")
		if name == register {
			out = append(out, e)
		}
	}
	return out
}

// Costs by which events are laid side by side.
const (
	costSame    = 0
	costChanged = 2 // the same kind of event, another digest
	costOneSide = 3 // happened and was not predicted, or the other way round
	costOther   = 7 // more than one of each
	maxAligned  = 4096
)

func alike(p PlannedEvent, s eventlog.Event, bank string) int {
	digest, ok := p.Digests[bank]
	switch {
	case ok && digest == hexDigest(s, bank):
		return costSame
	case p.Type != uint32(s.Type):
		return costOther
	case !ok:
		return costSame // nothing was predicted of its digest
	}
	return costChanged
}

func hexDigest(e eventlog.Event, bank string) string {
	for alg, sum := range e.Digests {
		if bankName(alg) == bank {
			return hex.EncodeToString(sum)
		}
	}
	return ""
}

// compareEvents lays the events of a register side by side with the least cost
// and reports what does not fit.
func (x *explainer) compareEvents(register, bank string, p []PlannedEvent, s []eventlog.Event) []Difference {
	if len(s) > maxAligned {
		s = s[:maxAligned]
	}
	cost := make([][]int, len(p)+1)
	for i := range cost {
		cost[i] = make([]int, len(s)+1)
	}
	for i := len(p); i >= 0; i-- {
		for j := len(s); j >= 0; j-- {
			switch {
			case i == len(p):
				cost[i][j] = (len(s) - j) * costOneSide
			case j == len(s):
				cost[i][j] = (len(p) - i) * costOneSide
			default:
				cost[i][j] = min(cost[i+1][j+1]+alike(p[i], s[j], bank), cost[i+1][j]+costOneSide, cost[i][j+1]+costOneSide)
			}
		}
	}
	var out []Difference
	for i, j := 0, 0; i < len(p) || j < len(s); {
		switch {
		case i < len(p) && j < len(s) && cost[i][j] == cost[i+1][j+1]+alike(p[i], s[j], bank):
			if alike(p[i], s[j], bank) != costSame {
				out = append(out, x.changed(register, bank, p[i], s[j]))
			}
			i, j = i+1, j+1
		case i < len(p) && cost[i][j] == cost[i+1][j]+costOneSide:
			out = append(out, Difference{
				Register: register, Inputs: []string{p[i].Input}, Predicted: digestOf(p[i], bank),
				Text: fmt.Sprintf("%s: %q (%s) was predicted and did not happen", register, p[i].Name, eventlog.EventType(p[i].Type)),
			})
			i++
		default:
			out = append(out, Difference{
				Register: register, Inputs: []string{}, Seen: hexDigest(s[j], bank),
				Text: fmt.Sprintf("%s: %s happened and was not predicted", register, s[j].Describe()),
			})
			j++
		}
	}
	return out
}

func digestOf(p PlannedEvent, bank string) []string {
	if d, ok := p.Digests[bank]; ok {
		return []string{d}
	}
	return nil
}

// changed reports an event with another digest than predicted.
func (x *explainer) changed(register, bank string, p PlannedEvent, s eventlog.Event) Difference {
	seen := hexDigest(s, bank)
	d := Difference{Register: register, Inputs: []string{p.Input}, Predicted: digestOf(p, bank), Seen: seen}
	d.Text = fmt.Sprintf("%s: %s differs, in the event %q (%s)", register, words(d.Inputs), p.Name, s.Describe())
	if why := x.why(boot.Input(p.Input), seen, bank); why != "" {
		d.Text += ": " + why
	}
	return d
}

// why looks for what leads to a digest.
func (x *explainer) why(input boot.Input, digest, bank string) string {
	alg := eventlog.SHA256
	if bank == bankName(eventlog.SHA384) {
		alg = eventlog.SHA384
	}
	is := func(b []byte) bool { return hex.EncodeToString(alg.Sum(b)) == digest }
	switch input {
	case boot.Memory:
		return x.memory(is)
	case boot.CommandLine:
		return x.commandLine(is)
	case boot.Initrd:
		for _, c := range x.candidates {
			if c.Input == input && is(c.Data) {
				return "it is " + c.Name
			}
		}
	case boot.Kernel:
		return x.kernel(digest, alg)
	default:
	}
	return ""
}

// memory finds the size of memory that leads to a TD HOB.
func (x *explainer) memory(is func([]byte) bool) string {
	f := x.doc.Inputs.Firmware
	if f == nil || f.TDLayout == nil {
		return ""
	}
	const (
		step  = 128 << 20
		limit = 4096 // steps: 512 GiB
	)
	try := func(size uint64) string {
		if list, err := f.TDLayout.List(size); err == nil && is(list) {
			return fmt.Sprintf("the guest has %d MiB", size>>20)
		}
		return ""
	}
	for n := uint64(1); n <= limit; n++ {
		if text := try(n * step); text != "" {
			return text
		}
	}
	for size := uint64(limit * step); size <= 1<<44; size += 1 << 34 {
		if text := try(size); text != "" {
			return text
		}
	}
	return ""
}

// commandLine tries the predicted line and the candidates, as editions of OVMF
// change them.
func (x *explainer) commandLine(is func([]byte) bool) string {
	lines := slices.Clone(x.candidates)
	if given := x.doc.Inputs.CommandLine; given != nil {
		lines = append(lines, Candidate{boot.CommandLine, "the predicted one", []byte(*given)})
	}
	for _, c := range lines {
		if c.Input != boot.CommandLine {
			continue
		}
		line := string(bytes.TrimSuffix(c.Data, []byte("\n")))
		for text, how := range map[string]string{
			line: "nothing about an initrd", line + " initrd=initrd": "initrd=initrd behind it, as OVMF before 2025.05 does",
			"initrd=initrd " + line: "initrd=initrd before it, as newer OVMF does",
		} {
			if is(efi.UTF16Z(text)) || is([]byte(text+"\x00")) || is([]byte(text)) {
				return fmt.Sprintf("it is %s, with %s", c.Name, how)
			}
		}
	}
	return ""
}

// kernel tries the candidates as QEMU leaves and as it changes them.
func (x *explainer) kernel(digest string, alg eventlog.Algorithm) string {
	initrds := []int{0}
	if f := x.doc.Inputs.Initrd; f != nil {
		initrds = append(initrds, f.Size)
	}
	for _, c := range x.candidates {
		if c.Input == boot.Initrd {
			initrds = append(initrds, len(c.Data))
		}
	}
	for _, c := range x.candidates {
		if c.Input != boot.Kernel {
			continue
		}
		if imageIs(c.Data, digest, alg) {
			return "it is " + c.Name
		}
		for _, size := range initrds {
			for _, memory := range append([]uint64{4 << 30}, x.doc.Inputs.Memory...) {
				if raw, err := boot.PatchKernel(c.Data, size, memory); err == nil && imageIs(raw, digest, alg) {
					return fmt.Sprintf("it is %s, with the setup header that QEMU writes for %d MiB and an initrd of %d bytes", c.Name, memory>>20, size)
				}
			}
		}
	}
	return ""
}

func imageIs(raw []byte, digest string, alg eventlog.Algorithm) bool {
	p, err := efi.ParsePE(raw)
	if err != nil {
		return false
	}
	sum, err := boot.Image(p).Sum(alg)
	return err == nil && hex.EncodeToString(sum) == digest
}
