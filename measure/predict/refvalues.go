package predict

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

// ReferenceValues returns what policies ask for, under the names of the field's
// policies (kbs-protocol 9.3): a list of good values each. The values of SEV and
// SEV-ES have no name there.
func (d *Document) ReferenceValues() []refvalue.Value {
	lists := map[string][]string{}
	put := func(name, value string) {
		if !slices.Contains(lists[name], value) {
			lists[name] = append(lists[name], value)
		}
	}
	for _, v := range d.Values {
		for _, name := range v.names() {
			put(name, v.Value)
		}
	}
	for _, b := range d.Boots {
		if b.Platform != TDX {
			continue
		}
		for _, e := range b.Events {
			digest, ok := e.Digests[bankName(eventlog.SHA384)]
			switch {
			case !ok:
			case e.Type == uint32(eventlog.EFIBootServicesApplication) && (e.Input == string(boot.Kernel) || e.Input == string(Image)):
				put("tdvfkernel", digest)
			case e.Type == uint32(eventlog.EventTag) && e.Input == string(boot.CommandLine):
				put("tdvfkernelparams", digest)
			}
		}
	}
	var out []refvalue.Value
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		raw, err := json.Marshal(lists[name])
		if err != nil {
			panic(err) // texts
		}
		out = append(out, refvalue.Value{Name: name, Value: raw})
	}
	return out
}

// names are the names under which policies know a value.
func (v Value) names() []string {
	switch {
	case v.Platform == SNP && v.Register == regMeasurement:
		return []string{"snp_launch_measurement"}
	case v.Platform == TDX && v.Register != "mr_config_id" && !v.zero():
		// RTMR3 is what the guest makes of it: its initial value says nothing.
		return []string{v.Register}
	case v.Platform == TPM && v.Bank == bankName(eventlog.SHA256):
		if v.Register == pcrName(11) && !v.zero() {
			// A paravisor's TPM sees the same of a unified kernel image.
			return []string{"tpm_pcr11", "snp_pcr11", "tdx_pcr11"}
		}
		return []string{"tpm_" + v.Register}
	}
	return nil
}

// zero reports whether nothing is extended into the register.
func (v Value) zero() bool {
	raw, err := hex.DecodeString(v.Value)
	return err == nil && !slices.ContainsFunc(raw, func(b byte) bool { return b != 0 })
}

// RVPS returns the message by which the field's reference value provider takes
// values: type sample, a list of values for each name (kbs-protocol 12.1).
func (d *Document) RVPS() ([]byte, error) {
	payload := map[string]json.RawMessage{}
	for _, v := range d.ReferenceValues() {
		payload[v.Name] = v.Value
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("reference values: %w", err)
	}
	return json.Marshal(struct {
		Version string `json:"version"`
		Type    string `json:"type"`
		Payload string `json:"payload"`
	}{"0.1.0", "sample", base64.StdEncoding.EncodeToString(raw)})
}

// Provenance returns the files that the prediction was made from.
func (d *Document) Provenance() []refvalue.Source {
	var out []refvalue.Source
	in := d.Inputs
	add := func(name string, f *File) {
		if f != nil {
			sum, err := hex.DecodeString(f.SHA256)
			if err == nil {
				out = append(out, refvalue.Source{Name: name, SHA256: sum})
			}
		}
	}
	add("image", in.Image)
	if in.Firmware != nil {
		add("firmware", &in.Firmware.File)
	}
	add("kernel", in.Kernel)
	add("initrd", in.Initrd)
	add("uki", in.UKI)
	if in.CommandLine != nil {
		out = append(out, refvalue.Source{Name: "cmdline", SHA256: sha256Sum([]byte(*in.CommandLine))})
	}
	return out
}
