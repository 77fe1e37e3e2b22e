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
	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// changes are guests that differ in one input each, and what is to be found.
var changes = map[string]struct {
	change func(t *testing.T, in *Inputs)
	input  map[Platform]string // that differs; none where the platform cannot tell
	words  map[Platform]string // in the text
}{
	"nothing": {change: func(*testing.T, *Inputs) {}},
	"kernel": {
		func(_ *testing.T, in *Inputs) { in.Kernel = boottest.Kernel([]byte("kernel 2")) },
		map[Platform]string{SNP: "kernel", TDX: "kernel", TPM: "kernel"},
		map[Platform]string{SNP: "the kernel differs: it is new", TDX: `the kernel differs, in the event "kernel"`, TPM: "it is new, with the setup header"},
	},
	"initrd": {
		func(_ *testing.T, in *Inputs) { in.Initrd = append(slices.Clone(in.Initrd), '2') },
		map[Platform]string{SNP: "initrd", TDX: "initrd", TPM: "initrd"},
		map[Platform]string{SNP: "the initrd differs: it is new", TDX: "it is new", TPM: "it is new"},
	},
	"command line": {
		func(_ *testing.T, in *Inputs) { in.CommandLine = "console=ttyS1 quiet" },
		map[Platform]string{SNP: "cmdline", TDX: "cmdline", TPM: "cmdline"},
		map[Platform]string{SNP: "the command line differs: it is new", TDX: "it is new, with initrd=initrd behind it", TPM: "it is new, with initrd=initrd behind it"},
	},
	"firmware": {
		func(_ *testing.T, in *Inputs) { in.Firmware = firmware("two") },
		map[Platform]string{SNP: "firmware", TDX: "variables", TPM: ""},
		map[Platform]string{SNP: "the firmware differs: it is new", TDX: "the firmware's variables (Secure Boot) differ"},
	},
	"vCPUs": {
		func(t *testing.T, in *Inputs) { in.VCPUs, in.Machine = []int{3}, machineOf(t, 3, true) },
		map[Platform]string{SNP: "vcpus", TDX: "vcpus", TPM: "vcpus"},
		map[Platform]string{SNP: "predicted for 2, the guest has 3", TDX: "of a machine with 3 vCPUs", TPM: "of a machine with 3 vCPUs"},
	},
	"memory": {
		func(_ *testing.T, in *Inputs) { in.Memory = []uint64{512 << 20} },
		map[Platform]string{TDX: "memory", TPM: "memory"},
		map[Platform]string{TDX: "the guest has 512 MiB", TPM: "it is the predicted one, with the setup header that QEMU writes for 512 MiB"},
	},
}

// candidatesOf are the files of a guest.
func candidatesOf(in Inputs) []Candidate {
	out := []Candidate{
		{boot.Firmware, "new", in.Firmware}, {boot.Kernel, "new", in.Kernel}, {boot.Initrd, "new", in.Initrd},
		{boot.CommandLine, "new", []byte(in.CommandLine + "\n")},
	}
	return append(out, Candidate{boot.ACPI, "new", predicttest.Tables(in.VCPUs[0])})
}

// seenOf is what a guest with the inputs measures.
func seenOf(t *testing.T, in Inputs, p Platform) *Seen {
	t.Helper()
	if p != SNP {
		s, err := ReadSeen(bootLog(t, in, p))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	f, err := ovmf.Parse(in.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	h, err := sev.HashBoot(in.Kernel, in.Initrd, in.CommandLine)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := sev.ParseCPU("EPYC-v4")
	if err != nil {
		t.Fatal(err)
	}
	m, err := snp.PredictVM(snp.VM{Firmware: f, Hashes: &h, VCPUs: in.VCPUs[0], CPU: sev.CPU{VMM: sev.QEMU, Signature: signature, Features: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return &Seen{Platform: SNP, Registers: map[string]string{"measurement": hex.EncodeToString(m[:])}}
}

// Each input that changes is found and named, on each platform that can tell.
func TestDiff(t *testing.T) {
	base := inputs(t)
	d := predicted(t, base)
	for name, c := range changes {
		for _, p := range []Platform{SNP, TDX, TPM} {
			t.Run(name+" on "+string(p), func(t *testing.T) {
				in := base
				c.change(t, &in)
				got, err := Diff(d, seenOf(t, in, p), candidatesOf(in))
				if err != nil {
					t.Fatal(err)
				}
				want := c.input[p]
				if want == "" {
					if len(got.Differences) != 0 || len(got.Same) == 0 {
						t.Errorf("%+v", got)
					}
					return
				}
				said := false
				for _, d := range got.Differences {
					said = said || strings.Contains(d.Text, c.words[p])
					if !slices.Equal(d.Inputs, []string{want}) {
						t.Errorf("not just %s: %+v", want, d)
					}
				}
				if !said {
					t.Errorf("want %q in %+v", c.words[p], got.Differences)
				}
			})
		}
	}
}

// Without candidates the input has a name still, as far as events tell; of a
// launch digest only what it depends on is known.
func TestDiffWithoutCandidates(t *testing.T) {
	base := inputs(t)
	d := predicted(t, base)
	in := base
	in.CommandLine = "other"
	for p, want := range map[Platform]string{
		SNP: "so the firmware, the kernel, the initrd or the command line differs",
		TDX: `rtmr_2: the command line differs, in the event "command line"`,
		TPM: `pcr09: the command line differs, in the event "command line"`,
	} {
		got, err := Diff(d, seenOf(t, in, p), nil)
		if err != nil || len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, want) {
			t.Errorf("%s: %+v, %v", p, got, err)
		}
	}
	// Registers alone, without the log.
	s := seenOf(t, in, TDX)
	s.Log = nil
	got, err := Diff(d, s, nil)
	if err != nil || len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, "it depends on the command line and the initrd; the event log would tell") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Diff(d, &Seen{Platform: "sgy"}, nil); err == nil {
		t.Error("compared with what was not predicted")
	}
}

// Events that come in between or are missing.
func TestDiffOfEvents(t *testing.T) {
	base := inputs(t)
	d := predicted(t, base)
	l, err := eventlog.Parse(bootLog(t, base, TDX))
	if err != nil {
		t.Fatal(err)
	}
	l.Add(3, eventlog.EventTag, []byte("something else"), []byte("something else"))
	i := slices.IndexFunc(l.Events, func(e eventlog.Event) bool { return e.Index == 2 && e.Type == eventlog.Separator })
	l.Events = slices.Delete(l.Events, i, i+1)
	s, err := SeenLog(l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Diff(d, s, nil)
	if err != nil || len(got.Differences) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if text := got.Differences[0].Text; !strings.Contains(text, `rtmr_1: "separator"`) || !strings.Contains(text, "was predicted and did not happen") {
		t.Error(text)
	}
	if text := got.Differences[1].Text; !strings.Contains(text, "rtmr_2") || !strings.Contains(text, "happened and was not predicted") {
		t.Error(text)
	}
}

// Init-data: another document, or none.
func TestDiffOfInitData(t *testing.T) {
	d := predicted(t, inputs(t))
	other := document(t, "y")
	candidates := []Candidate{{boot.InitData, "y.toml", other.Raw()}}
	for want, field := range map[string]string{
		"the init-data differs: it is y.toml": hex.EncodeToString(other.Digest()), "the guest has none": strings.Repeat("0", 64),
	} {
		got, err := Diff(d, &Seen{Platform: SNP, Registers: map[string]string{"host_data": field}}, candidates)
		if err != nil || len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, want) {
			t.Errorf("want %q: %+v, %v", want, got, err)
		}
	}
}

// A shape that nobody predicted for: the host's kernel, its features, its VMM.
func TestDiffOfHosts(t *testing.T) {
	in := inputs(t)
	d := predicted(t, in)
	f, err := ovmf.Parse(in.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	h, err := sev.HashBoot(in.Kernel, in.Initrd, in.CommandLine)
	if err != nil {
		t.Fatal(err)
	}
	v4, err := sev.ParseCPU("EPYC-v4")
	if err != nil {
		t.Fatal(err)
	}
	for want, cpu := range map[string]sev.CPU{
		"the guest features differ: predicted for 0x1, the guest has 0x21": {VMM: sev.QEMU, Signature: v4, Features: 0x21},
		"CPUID signature 0xa10f10":                                     {VMM: sev.QEMU, Signature: 0xa10f10, Features: 1},
		"the VMM differs: predicted for qemu, the guest has ec2":       {VMM: sev.EC2, Features: 1},
		"predicted for their values after a reset, the guest has zero": {VMM: sev.QEMU, Signature: v4, Features: 1, FPU: sev.FPUZero},
	} {
		m, err := snp.PredictVM(snp.VM{Firmware: f, Hashes: &h, VCPUs: 2, CPU: cpu})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Diff(d, &Seen{Platform: SNP, Registers: map[string]string{"measurement": hex.EncodeToString(m[:])}}, nil)
		if err != nil || len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, want) {
			t.Errorf("want %q: %+v, %v", want, got, err)
		}
	}
}

// Simulated guests: the image or the command line.
func TestDiffOfSimulated(t *testing.T) {
	d, err := Simulated([]byte("agent"), "quiet", nil, SNP, TDX, TPM)
	if err != nil {
		t.Fatal(err)
	}
	candidates := []Candidate{{Image, "agent.old", []byte("agent 0")}, {Image, "agent", []byte("agent")}, {boot.CommandLine, "other", []byte("loud")}}
	for want, l := range map[string]snp.Launch{
		"":                                    {Image: []byte("agent"), CommandLine: "quiet"},
		"the image differs: it is agent.old":  {Image: []byte("agent 0"), CommandLine: "quiet"},
		"the command line differs: it is":     {Image: []byte("agent"), CommandLine: "loud"},
		"so the image or the command line di": {Image: []byte("agent"), CommandLine: "unknown"},
	} {
		m, err := snp.Predict(l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Diff(d, &Seen{Platform: SNP, Registers: map[string]string{"measurement": hex.EncodeToString(m[:])}}, candidates)
		if err != nil || want == "" && len(got.Differences) != 0 || want != "" && (len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, want)) {
			t.Errorf("want %q: %+v, %v", want, got, err)
		}
	}
}

// What the guest extends by itself stands in no log of the firmware: its init-data
// is explained all the same, and the log is that of this boot.
func TestDiffOfWhatIsNotLogged(t *testing.T) {
	in := inputs(t)
	d := predicted(t, in)
	l, err := eventlog.Parse(bootLog(t, in, TPM))
	if err != nil {
		t.Fatal(err)
	}
	l.Events = slices.DeleteFunc(l.Events, func(e eventlog.Event) bool { return e.Index == 8 || e.Index == 10 })
	s, err := SeenLog(l)
	if err != nil {
		t.Fatal(err)
	}
	other := document(t, "y")
	s.Registers["pcr08/sha256"] = hex.EncodeToString(eventlog.Extend(eventlog.SHA256, make([]byte, 32), other.Digest()))
	if err := s.AddLog(l); err != nil {
		t.Fatal(err)
	}
	got, err := Diff(d, s, []Candidate{{boot.InitData, "y.toml", other.Raw()}})
	if err != nil || len(got.Differences) != 1 || got.Differences[0].Text != "pcr08/sha256: the init-data differs: it is y.toml" {
		t.Errorf("%+v, %v", got, err)
	}
	s.Registers["pcr08/sha256"] = strings.Repeat("0", 64)
	got, err = Diff(d, s, nil)
	if err != nil || len(got.Differences) != 1 || !strings.Contains(got.Differences[0].Text, "the guest has none") {
		t.Errorf("%+v, %v", got, err)
	}
	// The log that is predicted has neither.
	in.TPMLog, in.Platforms = l, []Platform{TPM}
	if log, err := predicted(t, in).Log(TPM); err == nil {
		t.Errorf("a log was made though the SHA-384 of the firmware is not known: %v", log)
	}
}
