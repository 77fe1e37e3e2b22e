package predict

import (
	"encoding/hex"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Image is the input of a simulated guest, beside its command line.
const Image boot.Input = "image"

// Simulated predicts for simulated guests, which are processes and have no
// firmware: see [snp.Launch], [tdx.Launch] and [tpm.Launch].
func Simulated(image []byte, commandLine string, init *initdata.Document, platforms ...Platform) (*Document, error) {
	file, err := describeFile(boot.Bytes(image))
	if err != nil {
		return nil, err
	}
	d := &Document{Schema: Schema, Inputs: Described{Image: file, CommandLine: &commandLine}}
	for _, p := range platforms {
		switch p {
		case SNP:
			err = d.simulatedSNP(snp.Launch{Image: image, CommandLine: commandLine})
		case TDX:
			err = d.simulatedTD(tdx.Launch{Image: image, CommandLine: commandLine})
		case TPM:
			l := tpm.Launch{Image: image, CommandLine: commandLine}
			if init != nil {
				l.InitDataDigest = init.Digest()
			}
			err = d.simulatedTPM(l)
		default:
			err = fmt.Errorf("there are no simulated guests of %s", p)
		}
		if err != nil {
			return nil, err
		}
	}
	d.bind(init, platforms)
	return d, nil
}

// simulated is the shape of all values of simulated guests.
func simulated() Shape { return Shape{"guest": "simulated"} }

func (d *Document) simulatedSNP(l snp.Launch) error {
	measurement, err := snp.Predict(l)
	if err != nil {
		return err
	}
	d.add(Value{SNP, regMeasurement, "", hex.EncodeToString(measurement[:]), []string{string(Image), string(boot.CommandLine)}, simulated()})
	return nil
}

func (d *Document) simulatedTD(l tdx.Launch) error {
	p, err := tdx.Simulate(l)
	if err != nil {
		return err
	}
	d.add(Value{TDX, regMRTD, "", hex.EncodeToString(p.MRTD[:]), []string{string(Image)}, simulated()})
	plan := simulatedPlan(TDX, p.Log, func(index int) string { return fmt.Sprintf("rtmr_%d", index-1) })
	for n, r := range p.RTMR {
		name := fmt.Sprintf("rtmr_%d", n)
		d.add(Value{TDX, name, "", hex.EncodeToString(r[:]), plan.inputs(name), simulated()})
	}
	d.Boots = append(d.Boots, plan)
	return nil
}

func (d *Document) simulatedTPM(l tpm.Launch) error {
	log, err := l.Log()
	if err != nil {
		return err
	}
	values, err := tpm.Predict(l)
	if err != nil {
		return err
	}
	plan := simulatedPlan(TPM, log, pcrName)
	for pcr := range 16 {
		inputs := plan.inputs(pcrName(pcr))
		if pcr == tpm.InitDataPCR {
			inputs = []string{string(boot.InitData)}
		}
		d.add(Value{TPM, pcrName(pcr), bankName(tpm.Bank), hex.EncodeToString(values[pcr]), inputs, simulated()})
	}
	d.Boots = append(d.Boots, plan)
	return nil
}

// simulatedPlan is a log read as a plan.
func simulatedPlan(p Platform, l *eventlog.Log, register func(index int) string) BootPlan {
	plan := BootPlan{Platform: p, When: simulated()}
	for _, e := range l.Events {
		out := PlannedEvent{Register: register(e.Index), Type: uint32(e.Type), Name: e.Describe(), Input: simulatedInput(e), Data: e.Data, Digests: map[string]string{}}
		for alg, sum := range e.Digests {
			out.Digests[bankName(alg)] = hex.EncodeToString(sum)
		}
		plan.Events = append(plan.Events, out)
	}
	return plan
}

// simulatedInput is what an event of a simulated guest comes from.
func simulatedInput(e eventlog.Event) string {
	switch {
	case e.Type == eventlog.EFIBootServicesApplication, e.Type == eventlog.IPL && string(e.Data) == ".linux\x00":
		return string(Image)
	case e.Type == eventlog.EventTag, e.Type == eventlog.IPL && string(e.Data) == ".cmdline\x00":
		return string(boot.CommandLine)
	}
	return string(boot.Fixed)
}

// inputs are those that a register depends on.
func (b BootPlan) inputs(register string) []string {
	var out []string
	for _, e := range b.Events {
		if e.Register == register && e.Input != string(boot.Fixed) {
			out = append(out, e.Input)
		}
	}
	return out
}

// TD is what a TD of the document measures to, for a simulator to show: the one
// boot that is predicted, built as current hosts do.
func (d *Document) TD() (*tdx.Prediction, error) {
	log, err := d.Log(TDX)
	if err != nil {
		return nil, err
	}
	for _, v := range d.of(TDX, regMRTD) {
		if order := v.When["build_order"]; order != "" && order != string(tdx.SinglePass) {
			continue
		}
		raw, err := hex.DecodeString(v.Value)
		if err != nil || len(raw) != len(tdx.Register{}) {
			return nil, fmt.Errorf("%q is no MRTD", v.Value)
		}
		return &tdx.Prediction{MRTD: tdx.Register(raw), Log: log}, nil
	}
	return nil, fmt.Errorf("the prediction has no %s", regMRTD)
}
