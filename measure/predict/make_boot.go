package predict

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

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
		case in == boot.ACPI && m.Machine != nil:
			s["vcpus"] = strconv.Itoa(m.VCPUs[0])
			if v.memory > 0 {
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
	machine, err := m.machine(v, false, m.CCLog)
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
		machine, err := m.machine(v, true, m.TPMLog)
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
		out := PlannedEvent{Register: register(e.PCR), Type: uint32(e.Type), Name: e.Name, Input: string(e.Input), Data: e.Data, Missing: e.Missing, Digests: map[string]string{}}
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
