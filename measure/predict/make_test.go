package predict

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// value finds the one value of a register with all of a shape.
func value(t *testing.T, d *Document, p Platform, register, bank string, when Shape) Value {
	t.Helper()
	var found []Value
	for _, v := range d.Values {
		fits := v.Platform == p && v.Register == register && v.Bank == bank
		for k, want := range when {
			fits = fits && v.When[k] == want
		}
		if fits {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d values of %s %s %v: %+v", len(found), p, register, when, found)
	}
	return found[0]
}

// Launch digests in every shape, each beside its inputs.
func TestLaunchDigests(t *testing.T) {
	in := inputs(t)
	in.Machine, in.VCPUs, in.CPUs = nil, []int{1, 4}, []string{"EPYC-v4", "EPYC-Genoa"}
	in.VMMs, in.Features, in.FPUs = []sev.VMM{sev.QEMU, sev.EC2}, []uint64{1, 0x21}, []sev.FPU{sev.FPUReset, sev.FPUZero}
	in.Platforms = []Platform{SEV, SEVES, SNP}
	d := predicted(t, in)
	f, err := ovmf.Parse(in.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	h, err := sev.HashBoot(in.Kernel, in.Initrd, in.CommandLine)
	if err != nil {
		t.Fatal(err)
	}
	genoa, err := sev.ParseCPU("EPYC-Genoa")
	if err != nil {
		t.Fatal(err)
	}
	want, err := snp.PredictVM(snp.VM{Firmware: f, Hashes: &h, VCPUs: 4, CPU: sev.CPU{VMM: sev.QEMU, Signature: genoa, Features: 0x21, FPU: sev.FPUZero}})
	if err != nil {
		t.Fatal(err)
	}
	got := value(t, d, SNP, "measurement", "", Shape{"vcpus": "4", "cpu": "EPYC-Genoa", "features": "0x21", "fpu": "zero", "vmm": "qemu"})
	if got.Value != hex.EncodeToString(want[:]) || !slices.Equal(got.DependsOn, []string{"firmware", "kernel", "initrd", "cmdline", "vcpus", "cpu", "features"}) {
		t.Errorf("%+v, want %x", got, want)
	}
	count := map[Platform]int{}
	for _, v := range d.Values {
		if v.Register == "measurement" {
			count[v.Platform]++
		}
	}
	// QEMU has 2 models, 2 features and 2 states of the FPU; EC2 has 2 features.
	if count[SNP] != 2*(8+2) || count[SEVES] != 2*(4+1) || count[SEV] != 1 {
		t.Errorf("counts: %v", count)
	}
	if value(t, d, SNP, "host_data", "", nil).Value != hex.EncodeToString(in.InitData.Digest()) {
		t.Error("the init-data's field")
	}
}

// RTMRs and PCRs, with all of a machine given: what each depends on, and for
// which shape it holds.
func TestRegisters(t *testing.T) {
	in := inputs(t)
	in.Headers, in.Platforms = []Header{Plain, Patched}, []Platform{TDX, TPM}
	d := predicted(t, in)
	f, err := ovmf.Parse(in.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []tdx.BuildOrder{tdx.SinglePass, tdx.TwoPass} {
		want, err := tdx.MRTD(f, order)
		if got := value(t, d, TDX, "mr_td", "", Shape{"build_order": string(order)}); err != nil || got.Value != hex.EncodeToString(want[:]) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	r0 := value(t, d, TDX, "rtmr_0", "", nil)
	if r0.When.String() != "memory 1073741824, vcpus 2" || !slices.Equal(r0.DependsOn, []string{"memory", "variables", "acpi", "boot_variables"}) {
		t.Errorf("%+v", r0)
	}
	plain, patched := value(t, d, TDX, "rtmr_1", "", Shape{"kernel_header": "plain"}), value(t, d, TDX, "rtmr_1", "", Shape{"kernel_header": "patched"})
	if plain.Value == patched.Value || plain.When.String() != "kernel_header plain" || patched.When.String() != "kernel_header patched, memory 1073741824" {
		t.Errorf("%+v, %+v", plain, patched)
	}
	if r2 := value(t, d, TDX, "rtmr_2", "", nil); len(r2.When) != 0 || !slices.Equal(r2.DependsOn, []string{"cmdline", "initrd"}) {
		t.Errorf("%+v", r2)
	}
	// Each of the sixteen registers is there in both banks, or is explained.
	for pcr := range 16 {
		for _, bank := range []string{"sha256", "sha384"} {
			has := len(d.of(TPM, pcrName(pcr)+"/"+bank)) > 0
			why := slices.ContainsFunc(d.Unpredicted, func(u Unknown) bool { return u.Register == pcrName(pcr) && len(u.Reasons) > 0 })
			if !has && !why {
				t.Errorf("PCR %d in %s is neither predicted nor explained", pcr, bank)
			}
		}
	}
	eight := eventlog.Extend(eventlog.SHA256, make([]byte, 32), in.InitData.Digest())
	if got := value(t, d, TPM, "pcr08", "sha256", nil); got.Value != hex.EncodeToString(eight) {
		t.Errorf("%+v", got)
	}
	// A log of the same machine supplies what no file tells.
	l, err := eventlog.Parse(bootLog(t, in, TPM))
	if err != nil {
		t.Fatal(err)
	}
	in.TPMLog = l
	if got := predicted(t, in); len(got.of(TPM, "pcr00/sha256")) != 1 || len(got.of(TPM, "pcr10/sha256")) != 1 {
		t.Errorf("with the log: %+v", got.Unpredicted)
	}
}

// A unified kernel image: its sections, and each phase of systemd.
func TestUnifiedKernelImage(t *testing.T) {
	in := inputs(t)
	in.UKI, in.Phases = boottest.Unified(in.Kernel, in.Initrd, in.CommandLine), boot.Phases
	in.Kernel, in.Initrd, in.CommandLine = nil, nil, ""
	d := predicted(t, in)
	u, err := boot.ParseUnified(in.UKI, 0)
	if err != nil {
		t.Fatal(err)
	}
	u.Phases = boot.Phases
	want, err := boot.Replay(append(u.MeasureSections(), u.PhaseEvents()...), eventlog.SHA256, func(pcr int) int { return pcr })
	if err != nil {
		t.Fatal(err)
	}
	if got := value(t, d, TPM, "pcr11", "sha256", Shape{"phase": strings.Join(boot.Phases, ":")}); got.Value != hex.EncodeToString(want[11].Value) {
		t.Errorf("%+v, want %x", got, want[11].Value)
	}
	if got := len(d.of(TPM, "pcr11/sha256")); got != 1+len(boot.Phases) {
		t.Errorf("%d values of PCR 11", got)
	}
	// A TD measures the sections into RTMR2, and two images into RTMR1.
	if r2 := value(t, d, TDX, "rtmr_2", "", nil); !slices.Contains(r2.DependsOn, "uki") || !slices.Contains(r2.DependsOn, "initrd") {
		t.Errorf("%+v", r2)
	}
	if r1 := value(t, d, TDX, "rtmr_1", "", nil); !slices.Equal(r1.DependsOn, []string{"uki", "kernel"}) {
		t.Errorf("%+v", r1)
	}
	// SEV measures no image on a disk.
	if got := value(t, d, SNP, "measurement", "", nil); slices.Contains(got.DependsOn, "kernel") {
		t.Errorf("%+v", got)
	}
}

// What cannot be known stands in the document with the reason.
func TestUnpredicted(t *testing.T) {
	in := inputs(t)
	in.Machine, in.Memory = nil, nil
	reasons := func(d *Document, p Platform, register string) string {
		for _, u := range d.Unpredicted {
			if u.Platform == p && (u.Register == register || register == "") {
				return strings.Join(u.Reasons, "; ")
			}
		}
		return ""
	}
	d := predicted(t, in)
	if got := reasons(d, TDX, "rtmr_0"); !strings.Contains(got, "size of memory") || !strings.Contains(got, "ACPI tables") {
		t.Errorf("RTMR0: %q", got)
	}
	if got := reasons(d, TPM, ""); !strings.Contains(got, "size of memory is not given") {
		t.Errorf("TPM: %q", got)
	}
	in.Edition = ""
	if got := reasons(predicted(t, in), TDX, "rtmr_0 to rtmr_3"); !strings.Contains(got, "edition") {
		t.Errorf("without an edition: %q", got)
	}
	in = inputs(t)
	in.Machine = machineOf(t, 2, false)
	if got := reasons(predicted(t, in), TPM, "pcr01"); !strings.Contains(got, "ACPI tables of the machine") {
		t.Errorf("a machine without a TPM: %q", got)
	}
}

func TestRefusedInputs(t *testing.T) {
	for want, change := range map[string]func(*Inputs){
		"no firmware":          func(in *Inputs) { in.Firmware = nil },
		"malformed firmware":   func(in *Inputs) { in.Firmware = make([]byte, 4096) },
		"without a kernel":     func(in *Inputs) { in.Kernel = nil },
		"unified kernel image": func(in *Inputs) { in.UKI = in.Kernel },
		"with 2 vCPUs":         func(in *Inputs) { in.VCPUs = []int{4} },
		"one size of memory":   func(in *Inputs) { in.Memory = []uint64{1 << 30, 2 << 30} },
		"platform \"sgy\"":     func(in *Inputs) { in.Platforms = []Platform{"sgy"} },
		"nothing can be":       func(in *Inputs) { in.Platforms, in.CPUs, in.InitData = []Platform{SNP}, []string{"80386"}, nil },
		"partition table":      func(in *Inputs) { in.Disk = make([]byte, 4096) },
		"contains a NUL":       func(in *Inputs) { in.CommandLine = "a\x00b" },
		"are too few":          func(in *Inputs) { in.Platforms, in.InitData, in.Memory = []Platform{TPM}, nil, []uint64{1 << 16} },
	} {
		in := inputs(t)
		change(&in)
		if _, err := Make(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// Init-data on every platform whose evidence says something of it.
func TestInitData(t *testing.T) {
	in := inputs(t)
	d := predicted(t, in)
	digest := hex.EncodeToString(in.InitData.Digest())
	pcr := hex.EncodeToString(eventlog.Extend(eventlog.SHA256, make([]byte, 32), in.InitData.Digest()))
	zeros := strings.Repeat("0", 64)
	for _, c := range []struct {
		platform             Platform
		register, bank, want string
	}{
		{SNP, "host_data", "", digest}, {TDX, "mr_config_id", "", digest + zeros[:32]},
		{SGX, "config_id", "", digest + zeros}, {CCA, "realm_personalization_value", "", digest + zeros},
		{TPM, "pcr08", "sha256", pcr}, {AzSNPvTPM, "pcr08", "sha256", pcr}, {AzTDXvTPM, "pcr08", "sha256", pcr},
	} {
		if got := value(t, d, c.platform, c.register, c.bank, nil); got.Value != c.want || !slices.Equal(got.DependsOn, []string{"init_data"}) {
			t.Errorf("%+v, want %s", got, c.want)
		}
	}
	for _, p := range []Platform{SEV, SEVES} {
		if !slices.ContainsFunc(d.Unpredicted, func(u Unknown) bool { return u.Platform == p && u.Register == "init-data" }) {
			t.Errorf("nothing says that %s has no field for it", p)
		}
	}
	in.InitData, in.Platforms = nil, []Platform{CCA}
	if _, err := Make(in); err == nil || !strings.Contains(err.Error(), "none is given") {
		t.Errorf("without init-data: %v", err)
	}
}
