package predict

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// maxSearched is the number of vCPUs up to which the launch measurement is
// searched for.
const maxSearched = 512

// launch explains a launch measurement, which is a single digest over
// everything: by computing those that other shapes and candidates lead to.
func (x *explainer) launch(differ []string) {
	rest := slices.DeleteFunc(slices.Clone(differ), func(n string) bool { return n == regMeasurement })
	x.unexplained(rest, "")
	if len(rest) == len(differ) {
		return
	}
	d := x.difference(regMeasurement)
	found := x.search(d.Seen)
	tried := "neither another number of vCPUs, processor model, guest features or VMM leads to it, nor"
	if x.doc.Inputs.Image != nil {
		found, tried = x.searchSimulated(d.Seen), "it is not that of"
	}
	if found == nil {
		d.Inputs = slices.DeleteFunc(d.Inputs, func(s string) bool { return s == "vcpus" || s == "cpu" || s == "features" })
		d.Text = fmt.Sprintf("%s differs: %s any of the %d candidates; so %s", regMeasurement, tried, len(x.candidates), differs(d.Inputs))
		x.out.Differences = append(x.out.Differences, d)
		return
	}
	for _, f := range found {
		f.Register, f.Predicted, f.Seen = d.Register, d.Predicted, d.Seen
		x.out.Differences = append(x.out.Differences, f)
	}
}

// choice is one value of an input that is tried; the first of a list is the
// predicted one.
type choice[T any] struct {
	value T
	name  string // "" for the predicted one
}

// digests returns what to try for an input that is measured by its SHA-256.
func (x *explainer) digests(in boot.Input, predicted *File, none string) []choice[[32]byte] {
	empty := choice[[32]byte]{sha256.Sum256(nil), none}
	out := []choice[[32]byte]{empty}
	if predicted != nil {
		sum, err := hex.DecodeString(predicted.SHA256)
		if err == nil && len(sum) == sha256.Size {
			out = []choice[[32]byte]{{[32]byte(sum), ""}, empty}
		}
	} else {
		out[0].name = ""
	}
	for _, c := range x.candidates {
		if c.Input == in {
			out = add(out, choice[[32]byte]{sha256.Sum256(c.Data), c.Name})
		}
	}
	return out
}

// add appends a choice unless it is one that is there.
func add[T comparable](all []choice[T], c choice[T]) []choice[T] {
	if slices.ContainsFunc(all, func(o choice[T]) bool { return o.value == c.value }) {
		return all
	}
	return append(all, c)
}

func (x *explainer) lines() []choice[[32]byte] {
	predicted := ""
	if l := x.doc.Inputs.CommandLine; l != nil {
		predicted = *l
	}
	sum := func(line []byte) [32]byte { return sha256.Sum256(append(bytes.Clone(line), 0)) }
	out := add([]choice[[32]byte]{{sum([]byte(predicted)), ""}}, choice[[32]byte]{sum(nil), "empty"})
	for _, c := range x.candidates {
		if c.Input == boot.CommandLine {
			out = add(out, choice[[32]byte]{sum(bytes.TrimSuffix(c.Data, []byte("\n"))), c.Name})
		}
	}
	return out
}

// base is a firmware to start from, with its digest.
type base struct {
	firmware *ovmf.Firmware
	digest   [48]byte
}

func (x *explainer) firmwares() []choice[base] {
	var out []choice[base]
	if in := x.doc.Inputs.Firmware; in != nil {
		f, err := ovmf.Parse(in.Tail)
		digest, err2 := hex.DecodeString(in.SNPDigest)
		if err == nil && err2 == nil && len(digest) == 48 {
			out = append(out, choice[base]{base{f, [48]byte(digest)}, ""})
		}
	}
	for _, c := range x.candidates {
		if c.Input != boot.Firmware {
			continue
		}
		if f, err := ovmf.Parse(c.Data); err == nil {
			digest := snp.FirmwareDigest(f)
			if !slices.ContainsFunc(out, func(o choice[base]) bool { return o.value.digest == digest }) {
				out = append(out, choice[base]{base{f, digest}, c.Name})
			}
		}
	}
	return out
}

// hashes are the tables of kernel hashes to try, with what is changed in them.
func (x *explainer) hashes() []choice[*sev.Hashes] {
	if x.doc.Inputs.Kernel == nil {
		return []choice[*sev.Hashes]{{nil, ""}}
	}
	out := []choice[*sev.Hashes]{}
	for _, k := range x.digests(boot.Kernel, x.doc.Inputs.Kernel, "empty") {
		for _, i := range x.digests(boot.Initrd, x.doc.Inputs.Initrd, "absent") {
			for _, l := range x.lines() {
				name := ""
				for _, part := range []struct{ in, is string }{{"kernel", k.name}, {"initrd", i.name}, {"cmdline", l.name}} {
					if part.is != "" {
						name += part.in + "\x00" + part.is + "\x00"
					}
				}
				out = append(out, choice[*sev.Hashes]{&sev.Hashes{Kernel: k.value, Initrd: i.value, CommandLine: l.value}, name})
			}
		}
	}
	return append(out, choice[*sev.Hashes]{nil, "kernel\x00not loaded by the VMM\x00"})
}

// search tries other shapes with at most one other file, and any other files in
// the shapes that were predicted, and returns the explanation with the fewest
// changes.
func (x *explainer) search(want string) []Difference {
	var best []Difference
	wide, narrow := shapes{x.cpus(), maxSearched}, x.predictedShapes()
	for _, f := range x.firmwares() {
		for _, h := range x.hashes() {
			files := x.changedFiles(f.name, h.name)
			try := narrow
			if len(files) <= 1 {
				try = wide
			}
			if best != nil && len(files) >= len(best) {
				continue
			}
			vm := snp.VM{Firmware: f.value.firmware, FirmwareDigest: &f.value.digest, Hashes: h.value}
			for _, found := range try.find(vm, want) {
				got := append(slices.Clone(files), x.changedShape(found.cpu, found.vcpus)...)
				if best == nil || len(got) < len(best) {
					best = got
				}
			}
		}
	}
	return best
}

// shapes are processors to try, in numbers from 1 on.
type shapes struct {
	cpus  []sev.CPU
	count int
}

type shape struct {
	cpu   sev.CPU
	vcpus int
}

// find returns the shapes in which a machine has the measurement.
func (s shapes) find(vm snp.VM, want string) []shape {
	var out []shape
	for _, vm.CPU = range s.cpus {
		all, err := snp.PredictCounts(vm, s.count)
		if err != nil {
			continue
		}
		for i, m := range all {
			if hex.EncodeToString(m[:]) == want {
				out = append(out, shape{vm.CPU, i + 1})
			}
		}
	}
	return out
}

// predictedShapes are those of the document.
func (x *explainer) predictedShapes() shapes {
	var out shapes
	for _, v := range x.doc.of(SNP, regMeasurement) {
		cpu := sev.CPU{VMM: sev.VMM(v.When["vmm"]), FPU: sev.FPU(v.When["fpu"])}
		features, err := strconv.ParseUint(v.When["features"], 0, 64)
		if err != nil {
			continue
		}
		cpu.Features = features
		if model := v.When["cpu"]; model != "" {
			if cpu.Signature, err = sev.ParseCPU(model); err != nil {
				continue
			}
		}
		if !slices.Contains(out.cpus, cpu) {
			out.cpus = append(out.cpus, cpu)
		}
		if n, err := strconv.Atoi(v.When["vcpus"]); err == nil {
			out.count = min(max(out.count, n), maxSearched)
		}
	}
	return out
}

// cpus are the processors to try: all models that are known, and what hosts have
// set so far.
func (x *explainer) cpus() []sev.CPU {
	var signatures []uint32
	features := []uint64{1, 0x21, 0x201}
	for _, name := range sev.CPUs() {
		if s, err := sev.ParseCPU(name); err == nil {
			signatures = append(signatures, s)
		}
	}
	for _, c := range x.predictedShapes().cpus {
		signatures = append(signatures, c.Signature)
		if !slices.Contains(features, c.Features) {
			features = append(features, c.Features)
		}
	}
	slices.Sort(signatures)
	signatures = slices.Compact(signatures)
	var out []sev.CPU
	for _, f := range features {
		for _, s := range signatures {
			for _, fpu := range []sev.FPU{sev.FPUReset, sev.FPUZero} {
				out = append(out, sev.CPU{VMM: sev.QEMU, Signature: s, Features: f, FPU: fpu})
			}
		}
		for _, vmm := range []sev.VMM{sev.EC2, sev.EC2Legacy, sev.GCE, sev.KRUN} {
			out = append(out, sev.CPU{VMM: vmm, Features: f})
		}
	}
	return out
}

// changedFiles turns the names of what was tried into differences.
func (x *explainer) changedFiles(firmware, hashes string) []Difference {
	out := []Difference{}
	if firmware != "" {
		out = append(out, Difference{Inputs: []string{string(boot.Firmware)}, Text: "the firmware differs: it is " + firmware})
	}
	parts := bytes.Split([]byte(hashes), []byte{0})
	for i := 0; i+1 < len(parts); i += 2 {
		in := string(parts[i])
		out = append(out, Difference{Inputs: []string{in}, Text: fmt.Sprintf("%s: it is %s", differs([]string{in}), parts[i+1])})
	}
	return out
}

// changedShape compares a shape with the nearest of those predicted.
func (x *explainer) changedShape(cpu sev.CPU, vcpus int) []Difference {
	var all [][]Difference
	for _, v := range x.doc.of(SNP, regMeasurement) {
		all = append(all, compareShape(v.When, cpu, vcpus))
	}
	return slices.MinFunc(all, func(a, b []Difference) int { return cmp.Compare(len(a), len(b)) })
}

func compareShape(predicted Shape, cpu sev.CPU, vcpus int) []Difference {
	var out []Difference
	differ := func(in, was, is string) {
		if was != is {
			out = append(out, Difference{Inputs: []string{in}, Text: fmt.Sprintf("%s: predicted for %s, the guest has %s", differs([]string{in}), was, is)})
		}
	}
	differ("vcpus", predicted["vcpus"], strconv.Itoa(vcpus))
	differ("vmm", predicted["vmm"], string(cpu.VMM))
	if cpu.VMM == sev.QEMU && predicted["vmm"] == string(sev.QEMU) {
		was, err := sev.ParseCPU(predicted["cpu"])
		if err != nil || was != cpu.Signature {
			differ("cpu", predicted["cpu"], fmt.Sprintf("CPUID signature %#x", cpu.Signature))
		}
		differ("the host's kernel (6.10 or later sets MXCSR and FCW)", fpuName(predicted["fpu"]), fpuName(string(cpu.FPU)))
	}
	differ("features", predicted["features"], fmt.Sprintf("%#x", cpu.Features))
	return out
}

func fpuName(s string) string {
	if s == string(sev.FPUReset) {
		return "their values after a reset"
	}
	return s
}

// searchSimulated tries candidates for a guest that is a process.
func (x *explainer) searchSimulated(want string) []Difference {
	predicted := ""
	if l := x.doc.Inputs.CommandLine; l != nil {
		predicted = *l
	}
	lines := []choice[string]{{predicted, ""}}
	for _, c := range x.candidates {
		if c.Input == boot.CommandLine {
			lines = append(lines, choice[string]{string(bytes.TrimSuffix(c.Data, []byte("\n"))), c.Name})
		}
	}
	for _, c := range x.candidates {
		if c.Input != Image {
			continue
		}
		same := hex.EncodeToString(sha256Sum(c.Data)) == x.doc.Inputs.Image.SHA256
		for _, l := range lines {
			m, err := snp.Predict(snp.Launch{Image: c.Data, CommandLine: l.value})
			if err != nil || hex.EncodeToString(m[:]) != want {
				continue
			}
			var out []Difference
			if !same {
				out = append(out, Difference{Inputs: []string{string(Image)}, Text: "the image differs: it is " + c.Name})
			}
			if l.name != "" {
				out = append(out, Difference{Inputs: []string{string(boot.CommandLine)}, Text: "the command line differs: it is " + l.name})
			}
			return out
		}
	}
	return nil
}

func sha256Sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
