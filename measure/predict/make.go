package predict

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// Make predicts. It fails if the inputs cannot be, or if nothing at all can be
// said; what cannot be predicted of some platform stands in the document.
func Make(in Inputs) (*Document, error) {
	m, err := in.prepare()
	if err != nil {
		return nil, err
	}
	for _, p := range m.Platforms {
		switch p {
		case SEV, SEVES:
			err = m.beforeSNP(p)
		case SNP:
			err = m.snp()
		case TDX:
			err = m.tdx()
		case TPM:
			err = m.tpm()
		default:
			return nil, fmt.Errorf("platform %q cannot be predicted", p)
		}
		if err != nil {
			m.doc.unknown(p, "", nil, err.Error())
		}
	}
	m.initData()
	if len(m.doc.Values) == 0 {
		var why []error
		for _, u := range m.doc.Unpredicted {
			why = append(why, fmt.Errorf("%s: %s", u.Platform, strings.Join(u.Reasons, "; ")))
		}
		return nil, fmt.Errorf("nothing can be predicted: %w", errors.Join(why...))
	}
	return m.doc, nil
}

// Simulated predicts for a simulated guest, which is a process: see
// [snp.Launch].
func Simulated(image []byte, commandLine string, init *initdata.Document) (*Document, error) {
	measurement, err := snp.Predict(snp.Launch{Image: image, CommandLine: commandLine})
	if err != nil {
		return nil, err
	}
	file, err := describeFile(boot.Bytes(image))
	if err != nil {
		return nil, err
	}
	d := &Document{Schema: Schema, Inputs: Described{Image: file, CommandLine: &commandLine}}
	d.add(Value{
		Platform: SNP, Register: regMeasurement, Value: hex.EncodeToString(measurement[:]),
		DependsOn: []string{"image", string(boot.CommandLine)}, When: Shape{"guest": "simulated"},
	})
	d.bind(init, []Platform{SNP})
	return d, nil
}

// Registers by the names that claims have.
const (
	regMeasurement = "measurement"
	regMRTD        = "mr_td"
)

func snpDigest(f *ovmf.Firmware) [48]byte { return snp.FirmwareDigest(f) }

// processors are the shapes of virtual processors that are to be predicted for.
func (m *material) processors(features []uint64) ([]sev.CPU, []Shape, error) {
	var cpus []sev.CPU
	var shapes []Shape
	for _, vmm := range m.VMMs {
		models, fpus := m.CPUs, m.FPUs
		if vmm != sev.QEMU {
			models, fpus = []string{""}, []sev.FPU{sev.FPUReset} // no difference there
		}
		for _, model := range models {
			signature := uint32(0)
			if model != "" {
				var err error
				if signature, err = sev.ParseCPU(model); err != nil {
					return nil, nil, err
				}
			}
			for _, f := range features {
				for _, fpu := range fpus {
					cpus = append(cpus, sev.CPU{VMM: vmm, Signature: signature, Features: f, FPU: fpu})
					shapes = append(shapes, cpuShape(vmm, model, f, fpu))
				}
			}
		}
	}
	return cpus, shapes, nil
}

func cpuShape(vmm sev.VMM, model string, features uint64, fpu sev.FPU) Shape {
	s := Shape{"vmm": string(vmm), "features": fmt.Sprintf("%#x", features)}
	if model != "" {
		s["cpu"] = model
	}
	if fpu != sev.FPUReset {
		s["fpu"] = string(fpu)
	}
	return s
}

// launchInputs are the inputs that a launch digest depends on.
func (m *material) launchInputs() []string {
	out := []string{string(boot.Firmware)}
	if m.hashes != nil {
		out = append(out, string(boot.Kernel), string(boot.Initrd), string(boot.CommandLine))
	}
	return out
}

func (m *material) snp() error {
	digest := snpDigest(m.firmware)
	cpus, shapes, err := m.processors(m.Features)
	if err != nil {
		return err
	}
	for _, n := range m.VCPUs {
		for i, cpu := range cpus {
			vm := snp.VM{Firmware: m.firmware, FirmwareDigest: &digest, Hashes: m.hashes, VCPUs: n, CPU: cpu}
			measurement, err := snp.PredictVM(vm)
			if err != nil {
				return err
			}
			when := Shape{"vcpus": strconv.Itoa(n)}
			for k, v := range shapes[i] {
				when[k] = v
			}
			m.doc.add(Value{SNP, regMeasurement, "", hex.EncodeToString(measurement[:]), append(m.launchInputs(), "vcpus", "cpu", "features"), when})
		}
	}
	return nil
}

func (m *material) beforeSNP(p Platform) error {
	l := sev.Launch{Firmware: m.firmware, Hashes: m.hashes, EncryptedState: p == SEVES}
	if p == SEV {
		digest, err := sev.Predict(l)
		if err == nil {
			m.doc.add(Value{p, regMeasurement, "", hex.EncodeToString(digest[:]), m.launchInputs(), nil})
		}
		return err
	}
	cpus, shapes, err := m.processors([]uint64{0})
	if err != nil {
		return err
	}
	for _, l.VCPUs = range m.VCPUs {
		for i := range cpus {
			l.CPU = cpus[i]
			digest, err := sev.Predict(l)
			if err != nil {
				return err
			}
			when := Shape{"vcpus": strconv.Itoa(l.VCPUs)}
			for k, v := range shapes[i] {
				if k != "features" {
					when[k] = v
				}
			}
			m.doc.add(Value{p, regMeasurement, "", hex.EncodeToString(digest[:]), append(m.launchInputs(), "vcpus", "cpu"), when})
		}
	}
	return nil
}

// variant is one way in which a boot may go.
type variant struct {
	header Header
	memory uint64
}

// variants are the ways in which the kernel may reach the firmware.
func (m *material) variants(headers []Header) []variant {
	memory := m.Memory
	if len(memory) == 0 {
		memory = []uint64{0}
	}
	if m.kernel == nil {
		headers = []Header{Plain}
	}
	var out []variant
	for _, size := range memory {
		for _, h := range headers {
			out = append(out, variant{h, size})
		}
	}
	return out
}

// shape names a variant by what the inputs are sensitive to.
func (m *material) shape(v variant, inputs []boot.Input) Shape {
	s := Shape{}
	for _, in := range inputs {
		switch {
		case in == boot.Kernel && m.kernel != nil:
			s["kernel_header"] = string(v.header)
			if v.header == Patched && v.memory > 0 {
				s["memory"] = strconv.FormatUint(v.memory, 10)
			}
		case in == boot.Memory && v.memory > 0:
			s["memory"] = strconv.FormatUint(v.memory, 10)
		}
	}
	return s
}

func (m *material) tdx() error {
	for _, order := range []tdx.BuildOrder{tdx.SinglePass, tdx.TwoPass} {
		mrtd, err := tdx.MRTD(m.firmware, order)
		if err != nil {
			return err
		}
		m.doc.add(Value{TDX, regMRTD, "", hex.EncodeToString(mrtd[:]), []string{string(boot.Firmware)}, Shape{"build_order": string(order)}})
	}
	for _, v := range m.variants(m.Headers) {
		if err := m.td(v); err != nil {
			m.doc.unknown(TDX, "rtmr_0 to rtmr_3", m.shape(v, []boot.Input{boot.Kernel}), err.Error())
		}
	}
	return nil
}

// td predicts the runtime registers of one variant.
func (m *material) td(v variant) error {
	machine, err := m.machine(v.header, v.memory, m.CCLog)
	if err != nil {
		return err
	}
	events, err := tdx.TD{Firmware: m.firmware, Memory: v.memory, Machine: machine, Runtime: m.Runtime}.Events()
	if err != nil {
		return err
	}
	registers, err := tdx.Registers(events)
	if err != nil {
		return err
	}
	for i, r := range registers {
		m.register(TDX, fmt.Sprintf("rtmr_%d", i), "", r, v)
	}
	plan := m.plan(TDX, v, events, []eventlog.Algorithm{eventlog.SHA384}, func(pcr int) string { return fmt.Sprintf("rtmr_%d", eventlog.MRIndex(pcr)-1) })
	m.doc.Boots = append(m.doc.Boots, plan)
	return nil
}

// tpm predicts the PCRs. Without a TEE, QEMU always patches the kernel.
func (m *material) tpm() error {
	for _, v := range m.variants([]Header{Patched}) {
		machine, err := m.machine(v.header, v.memory, m.TPMLog)
		if err != nil {
			return err
		}
		if m.InitData != nil {
			machine.InitData = m.InitData.Digest()
		}
		events, err := machine.Events()
		if err != nil {
			return err
		}
		banks := []eventlog.Algorithm{eventlog.SHA256, eventlog.SHA384}
		for _, alg := range banks {
			registers, err := boot.Replay(events, alg, func(pcr int) int { return pcr })
			if err != nil {
				return err
			}
			for pcr := range 16 {
				r, ok := registers[pcr]
				if !ok {
					r.Value = eventlog.Initial(pcr, alg)
				}
				m.register(TPM, pcrName(pcr), bankName(alg), r, v)
			}
		}
		if err := m.phases(events, v, banks); err != nil {
			return err
		}
		m.doc.Boots = append(m.doc.Boots, m.plan(TPM, v, events, banks, pcrName))
	}
	return nil
}

// phases predicts PCR 11 after each of the phases that systemd extends.
func (m *material) phases(events []boot.Event, v variant, banks []eventlog.Algorithm) error {
	if m.uki == nil {
		return nil
	}
	for i := range m.Phases {
		unified := *m.uki
		unified.Phases = m.Phases[:i+1]
		for _, alg := range banks {
			registers, err := boot.Replay(append(events[:len(events):len(events)], unified.PhaseEvents()...), alg, func(pcr int) int { return pcr })
			if err != nil {
				return err
			}
			r := registers[11]
			if r.Value != nil {
				m.doc.add(Value{TPM, pcrName(11), bankName(alg), hex.EncodeToString(r.Value), inputNames(r.Inputs), Shape{"phase": strings.Join(unified.Phases, ":")}})
			}
		}
	}
	return nil
}

func (m *material) register(p Platform, name, bank string, r boot.Register, v variant) {
	when := m.shape(v, r.Inputs)
	if r.Value == nil {
		m.doc.unknown(p, name, when, r.Missing...)
		return
	}
	m.doc.add(Value{p, name, bank, hex.EncodeToString(r.Value), inputNames(r.Inputs), when})
}

func (m *material) plan(p Platform, v variant, events []boot.Event, banks []eventlog.Algorithm, register func(int) string) BootPlan {
	plan := BootPlan{Platform: p, When: m.shape(v, []boot.Input{boot.Kernel, boot.Memory})}
	for _, e := range events {
		out := PlannedEvent{Register: register(e.PCR), Type: uint32(e.Type), Name: e.Name, Input: string(e.Input), Missing: e.Missing, Digests: map[string]string{}}
		for _, alg := range banks {
			if e.Content == nil {
				continue
			}
			if sum, err := e.Content.Sum(alg); err == nil {
				out.Digests[bankName(alg)] = hex.EncodeToString(sum)
			}
		}
		plan.Events = append(plan.Events, out)
	}
	return plan
}

func pcrName(pcr int) string { return fmt.Sprintf("pcr%02d", pcr) }

func bankName(a eventlog.Algorithm) string {
	return strings.ToLower(strings.ReplaceAll(a.String(), "-", ""))
}

func inputNames(inputs []boot.Input) []string {
	var out []string
	for _, in := range inputs {
		out = append(out, string(in))
	}
	return out
}
