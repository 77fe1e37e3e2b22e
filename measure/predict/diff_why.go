package predict

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/acpi"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// changed reports an event with another digest than predicted, with the inputs
// that differ as far as they can be found.
func (x *explainer) changed(register, bank string, p PlannedEvent, s eventlog.Event) Difference {
	seen := hexDigest(s, bank)
	d := Difference{Register: register, Inputs: inputsOf(p), Predicted: digestOf(p, bank), Seen: seen}
	inputs, why := x.why(boot.Input(p.Input), seen, bank)
	if inputs != nil {
		d.Inputs = inputs
	}
	d.Text = fmt.Sprintf("%s: %s, in the event %q (%s)", register, differs(d.Inputs), p.Name, s.Describe())
	if why != "" {
		d.Text += ": " + why
	}
	return d
}

// digester tells whether bytes have the digest that is looked for.
type digester struct {
	digest string
	alg    eventlog.Algorithm
}

func (g digester) is(b []byte) bool { return hex.EncodeToString(g.alg.Sum(b)) == g.digest }

// image tells it of a PE image.
func (g digester) image(raw []byte) bool {
	p, err := efi.ParsePE(raw)
	if err != nil {
		return false
	}
	sum, err := boot.Image(p).Sum(g.alg)
	return err == nil && hex.EncodeToString(sum) == g.digest
}

// why looks for what leads to a digest, and says which inputs then differ if
// they are not just the one of the event.
func (x *explainer) why(input boot.Input, digest, bank string) (inputs []string, text string) {
	g := digester{digest, eventlog.SHA256}
	if bank == bankName(eventlog.SHA384) {
		g.alg = eventlog.SHA384
	}
	switch input {
	case boot.Memory:
		return nil, x.memory(g)
	case boot.CommandLine:
		return nil, x.commandLine(g)
	case boot.Kernel:
		return x.kernel(g)
	case boot.ACPI:
		return x.tables(g)
	case boot.Initrd:
		return nil, x.candidate(input, g.is)
	case boot.UKI:
		return nil, x.candidate(input, g.image)
	default:
	}
	return nil, ""
}

// candidate finds the candidate that leads to the digest.
func (x *explainer) candidate(input boot.Input, is func([]byte) bool) string {
	for _, c := range x.candidates {
		if c.Input == input && is(c.Data) {
			return "it is " + c.Name
		}
	}
	return ""
}

// tables tries candidates for ACPI tables, and compares the number of processors
// in those that fit.
func (x *explainer) tables(g digester) (inputs []string, text string) {
	for _, c := range x.candidates {
		if c.Input != boot.ACPI || !g.is(c.Data) {
			continue
		}
		text = "they are " + c.Name
		all, err := acpi.Parse(c.Data)
		if err != nil {
			return nil, text // the loader's script, or the root pointer
		}
		n, err := acpi.Processors(all)
		if err == nil && !slices.Contains(x.doc.Inputs.VCPUs, n) {
			return []string{"vcpus"}, fmt.Sprintf("%s, of a machine with %d vCPUs", text, n)
		}
		return nil, text
	}
	return nil, ""
}

// memory finds the size of memory that leads to a TD HOB.
func (x *explainer) memory(g digester) string {
	f := x.doc.Inputs.Firmware
	if f == nil || f.TDLayout == nil {
		return ""
	}
	const (
		step  = 128 << 20
		limit = 4096    // steps: 512 GiB
		wide  = 1 << 34 // steps beyond
		most  = 1 << 44
	)
	for size := uint64(step); size <= most; {
		if list, err := f.TDLayout.List(size); err == nil && g.is(list) {
			return fmt.Sprintf("the guest has %d MiB", size>>20)
		}
		if size < limit*step {
			size += step
		} else {
			size += wide
		}
	}
	return ""
}

// commandLine tries the predicted line and the candidates, as editions of OVMF
// change them.
func (x *explainer) commandLine(g digester) string {
	lines := slices.Clone(x.candidates)
	if given := x.doc.Inputs.CommandLine; given != nil {
		lines = append(lines, Candidate{boot.CommandLine, "the predicted one", []byte(*given)})
	}
	for _, c := range lines {
		if c.Input != boot.CommandLine {
			continue
		}
		line := string(bytes.TrimSuffix(c.Data, []byte("\n")))
		for _, form := range []struct{ text, how string }{
			{line, "nothing about an initrd"},
			{line + " initrd=initrd", "initrd=initrd behind it, as OVMF before 2025.05 does"},
			{"initrd=initrd " + line, "initrd=initrd before it, as newer OVMF does"},
		} {
			if g.is(efi.UTF16Z(form.text)) || g.is([]byte(form.text+"\x00")) || g.is([]byte(form.text)) {
				return fmt.Sprintf("it is %s, with %s", c.Name, form.how)
			}
		}
	}
	return ""
}

// kernel tries the candidates as QEMU leaves and as it changes them. If the
// kernel is the predicted one, what QEMU wrote into it tells which other input
// differs.
func (x *explainer) kernel(g digester) (inputs []string, text string) {
	for _, c := range x.candidates {
		if c.Input != boot.Kernel {
			continue
		}
		predicted := x.predictedKernel(c.Data)
		name := c.Name
		if predicted {
			name = "the predicted one"
		}
		if g.image(c.Data) {
			text = "it is " + name
			if predicted {
				return []string{"vmm"}, text + ", with its own setup header, as QEMU 10.2 and later leave it to a confidential guest"
			}
			return nil, text
		}
		if size, memory, ok := x.patched(c.Data, g); ok {
			text = fmt.Sprintf("it is %s, with the setup header that QEMU writes for %d MiB and an initrd of %d bytes", name, memory>>20, size)
			if predicted {
				inputs = x.written(size)
			}
			return inputs, text
		}
	}
	return nil, ""
}

func (x *explainer) predictedKernel(raw []byte) bool {
	f := x.doc.Inputs.Kernel
	return f != nil && hex.EncodeToString(sha256Sum(raw)) == f.SHA256
}

// written says which input made QEMU write something else into the predicted
// kernel.
func (x *explainer) written(initrd int) []string {
	predicted := 0
	if f := x.doc.Inputs.Initrd; f != nil {
		predicted = f.Size
	}
	if initrd != predicted {
		return []string{string(boot.Initrd)}
	}
	return []string{string(boot.Memory)}
}

// patched finds the size of an initrd and of memory for which QEMU makes a
// kernel have the digest. From 2 GiB on the size of memory makes no difference.
func (x *explainer) patched(kernel []byte, g digester) (initrd int, memory uint64, ok bool) {
	initrds := []int{0}
	if f := x.doc.Inputs.Initrd; f != nil {
		initrds = append(initrds, f.Size)
	}
	for _, c := range x.candidates {
		if c.Input == boot.Initrd {
			initrds = append(initrds, len(c.Data))
		}
	}
	const step = 256 << 20
	sizes := slices.Clone(x.doc.Inputs.Memory)
	for size := uint64(4 << 30); size >= step; size -= step {
		sizes = append(sizes, size)
	}
	tried := map[[boot.SetupEnd]byte]bool{}
	for _, initrd := range initrds {
		for _, memory := range sizes {
			raw, err := boot.PatchKernel(kernel, initrd, memory)
			if err != nil || tried[[boot.SetupEnd]byte(raw)] {
				continue
			}
			tried[[boot.SetupEnd]byte(raw)] = true
			if g.image(raw) {
				return initrd, memory, true
			}
		}
	}
	return 0, 0, false
}
