package predict

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// The names are those that the field's policies ask for, each with a list.
func TestReferenceValues(t *testing.T) {
	in := inputs(t)
	in.Machine, in.VCPUs = nil, []int{1, 2}
	d := predicted(t, in)
	lists := map[string][]string{}
	for _, v := range d.ReferenceValues() {
		var list []string
		if err := json.Unmarshal(v.Value, &list); err != nil {
			t.Fatal(err)
		}
		lists[v.Name] = list
	}
	for name, count := range map[string]int{"snp_launch_measurement": 2, "mr_td": 2, "rtmr_1": 1, "rtmr_2": 1, "tdvfkernel": 1, "tdvfkernelparams": 1, "tpm_pcr09": 1} {
		if len(lists[name]) != count {
			t.Errorf("%s: %q, want %d", name, lists[name], count)
		}
	}
	for _, name := range []string{"rtmr_0", "rtmr_3", "mr_config_id", "host_data", "snp_pcr11"} {
		if lists[name] != nil {
			t.Errorf("%s: %q", name, lists[name])
		}
	}
	// The kernel is in RTMR1, and in the value that policies compare events with.
	kernel, err := boot.Image(pe(t, in.Kernel)).Sum(eventlog.SHA384)
	if err != nil || lists["tdvfkernel"][0] != hexOf(kernel) {
		t.Errorf("%q, %x, %v", lists["tdvfkernel"], kernel, err)
	}
	raw, err := d.RVPS()
	if err != nil {
		t.Fatal(err)
	}
	var message struct{ Version, Type, Payload string }
	if err := json.Unmarshal(raw, &message); err != nil || message.Version != "0.1.0" || message.Type != "sample" {
		t.Errorf("%s, %v", raw, err)
	}
	payload, err := base64.StdEncoding.DecodeString(message.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string][]string
	if err := json.Unmarshal(payload, &again); err != nil || len(again) != len(lists) || !slices.Equal(again["mr_td"], lists["mr_td"]) {
		t.Errorf("%s, %v", payload, err)
	}
}

// A unified kernel image is seen by a paravisor's TPM as by any other.
func TestReferenceValuesOfUKI(t *testing.T) {
	in := inputs(t)
	in.UKI = boottest.Unified(in.Kernel, in.Initrd, in.CommandLine)
	in.Kernel, in.Initrd, in.CommandLine = nil, nil, ""
	values := map[string]string{}
	for _, v := range predicted(t, in).ReferenceValues() {
		values[v.Name] = string(v.Value)
	}
	if values["tpm_pcr11"] == "" || values["tpm_pcr11"] != values["snp_pcr11"] || values["tpm_pcr11"] != values["tdx_pcr11"] {
		t.Errorf("%v", values)
	}
}

// A value says where it comes from: every file, by its digest.
func TestProvenance(t *testing.T) {
	in := inputs(t)
	got := predicted(t, in).Provenance()
	want := map[string][]byte{"firmware": in.Firmware, "kernel": in.Kernel, "initrd": in.Initrd, "cmdline": []byte(in.CommandLine)}
	if len(got) != len(want) {
		t.Errorf("%+v", got)
	}
	for _, s := range got {
		if sum := sha256.Sum256(want[s.Name]); !bytes.Equal(s.SHA256, sum[:]) {
			t.Errorf("%s: %x", s.Name, s.SHA256)
		}
	}
}

func TestParsedDocument(t *testing.T) {
	in := inputs(t)
	raw, err := json.Marshal(predicted(t, in))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(d)
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("it became another: %v", err)
	}
	// What was read explains as well as what was made.
	in.CommandLine = "other"
	got, err := Diff(d, seenOf(t, in, SNP), []Candidate{{boot.CommandLine, "x", []byte("other")}})
	if err != nil || len(got.Differences) != 1 || got.Differences[0].Text != "the command line differs: it is x" {
		t.Errorf("%+v, %v", got, err)
	}
	for want, text := range map[string]string{
		"prediction": `[]`, "not a prediction": `{"schema":"x"}`, "has no values": `{"schema":"` + Schema + `"}`, "larger than": strings.Repeat(" ", MaxDocument+1),
	} {
		if _, err := ParseDocument([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// Debian's builds of OVMF: the digest of the firmware under SEV-SNP and MRTD are
// those that other programs compute.
func TestRealFirmware(t *testing.T) {
	var builds map[string]struct {
		SNP    string `json:"snp_ovmf_hash"`
		Single string `json:"mrtd_single_pass"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "own", "ovmf", "expected.json"), &builds); err != nil {
		t.Fatal(err)
	}
	for name, want := range builds {
		xz := exec.Command("xz", "-dc")
		xz.Stdin = bytes.NewReader(evidencetest.File(t, "launch", "own", "ovmf", name+".xz"))
		raw, err := xz.Output()
		if errors.Is(err, exec.ErrNotFound) {
			t.Skip("xz is not installed: apt-get install xz-utils")
		}
		if err != nil {
			t.Fatal(err)
		}
		d := predicted(t, Inputs{Firmware: raw, Platforms: []Platform{SNP, TDX}})
		if want.SNP != "" && d.Inputs.Firmware.SNPDigest != want.SNP {
			t.Errorf("%s: %s, want %s", name, d.Inputs.Firmware.SNPDigest, want.SNP)
		}
		if got := value(t, d, TDX, "mr_td", "", Shape{"build_order": "single-pass"}); got.Value != want.Single {
			t.Errorf("%s: %+v, want %s", name, got, want.Single)
		}
		if got := d.of(SNP, "measurement"); len(got) != 1 {
			t.Errorf("%s: %+v", name, d.Unpredicted)
		}
	}
}
