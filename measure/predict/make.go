package predict

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
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
		case SGX, CCA, AzSNPvTPM, AzTDXvTPM:
			if err = nil; m.InitData == nil {
				err = errors.New("only where the init-data ends up is predicted, and none is given")
			}
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
