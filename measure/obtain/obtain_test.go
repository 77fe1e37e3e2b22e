package obtain

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/azure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// noTPM is a machine's absence of a TPM.
func noTPM(t *testing.T) Chip { return tpmdev.New(tpmdev.File(filepath.Join(t.TempDir(), "tpmrm0"))) }

func device(names ...string) *tsmtest.Kernel {
	k := &tsmtest.Kernel{Ioctls: map[string]func(uint32, unsafe.Pointer) error{}}
	for _, n := range names {
		k.Ioctls[n] = func(uint32, unsafe.Pointer) error { return syscall.EIO }
	}
	return k
}

func TestDetection(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		tpm    Chip
		want   measure.Platform
	}{
		"TDX by configfs":          {&tsmtest.Kernel{Provider: tsm.ProviderTDX}, noTPM(t), measure.TDX},
		"TDX by its device":        {device(tdx.GuestDevice), noTPM(t), measure.TDX},
		"SNP by configfs":          {&tsmtest.Kernel{Provider: tsm.ProviderSNP}, noTPM(t), measure.SNP},
		"SNP by its device":        {device(snp.GuestDevice), noTPM(t), measure.SNP},
		"CCA":                      {&tsmtest.Kernel{Provider: tsm.ProviderCCA}, noTPM(t), measure.CCA},
		"a TPM alone":              {&tsmtest.Kernel{}, chip, measure.TPM},
		"SNP beside a TPM":         {&tsmtest.Kernel{Provider: tsm.ProviderSNP}, chip, measure.SNP},
		"TDX before SNP":           {device(snp.GuestDevice, tdx.GuestDevice), chip, measure.TDX},
		"a device beside configfs": {&tsmtest.Kernel{Configfs: true, Ioctls: device(snp.GuestDevice).Ioctls}, noTPM(t), measure.SNP},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			cfg := Config{
				Machine: Machine{Kernel: tc.kernel, TPM: tc.tpm}, RuntimeLog: filepath.Join(t.TempDir(), "log"),
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			}
			g, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Attester.Platform(); got != tc.want {
				t.Errorf("found %s, want %s", got, tc.want)
			}
			if last := g.Probes[len(g.Probes)-1]; last.Platform != tc.want || !last.Found || last.Seen == "" {
				t.Errorf("the last probe: %+v", last)
			}
			if warned := strings.Contains(log.String(), "a TPM alone"); warned != (tc.want == measure.TPM) {
				t.Errorf("the log: %s", &log)
			}
			if tc.kernel.OpenReports() != 0 {
				t.Error("a report directory is left")
			}
		})
	}
}

// Nothing found is an error that tells of every platform; nothing proves nothing.
func TestNothingFound(t *testing.T) {
	g, err := Open(t.Context(), Config{Machine: Machine{Kernel: &tsmtest.Kernel{}, TPM: noTPM(t)}})
	missing, ok := errors.AsType[*NotFound](err)
	if g != nil || !errors.Is(err, ErrNone) || !ok {
		t.Fatalf("got %v, %v", g, err)
	}
	for _, want := range []string{
		"tdx: there is no configfs-tsm (/sys/kernel/config/tsm/report), and no /dev/tdx_guest (driver tdx-guest)",
		"snp: ", "/dev/sev-guest", "cca: ", "tpm: no TPM device: there is no ", "tpmrm0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
	if len(missing.Probes) != len(Platforms()) {
		t.Errorf("%d probes of %d platforms", len(missing.Probes), len(Platforms()))
	}
}

func TestNamedPlatform(t *testing.T) {
	machine := Machine{Kernel: &tsmtest.Kernel{Provider: tsm.ProviderSNP}, TPM: noTPM(t)}
	for _, p := range []measure.Platform{measure.TDX, measure.CCA, measure.TPM, measure.Sample, measure.SampleDevice, "nonsense"} {
		_, err := Open(t.Context(), Config{Machine: machine, Platform: p})
		if !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), string(p)) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := Open(t.Context(), Config{Machine: machine, Platform: measure.TDX}); !strings.Contains(err.Error(), `has provider "sev_guest", not "tdx_guest"`) {
		t.Errorf("the other provider is not told of: %v", err)
	}
	g, err := Open(t.Context(), Config{Machine: machine, Platform: measure.SNP})
	if err != nil || g.Attester.Platform() != measure.SNP {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("no machine is needed")
	}
}

// failingTPM is there and fails.
type failingTPM struct {
	Chip
	nv bool // only its NV indices
}

func (f failingTPM) Present(ctx context.Context) error {
	if f.nv {
		return f.Chip.Present(ctx)
	}
	return syscall.EIO
}

func (failingTPM) ReadNV(context.Context, uint32) ([]byte, error) { return nil, syscall.EIO }

// An interface that fails does not make way for a weaker one, and does not keep
// anybody from a stronger one.
func TestFailingInterfaces(t *testing.T) {
	denied := func() *tsmtest.Kernel {
		return &tsmtest.Kernel{Provider: tsm.ProviderSNP, Before: func(op, _ string) error {
			if op == "mkdir" {
				return syscall.EACCES
			}
			return nil
		}}
	}
	withDevice, chip := denied(), tpmdev.New(swtpmtest.Start(t))
	withDevice.Ioctls = device(snp.GuestDevice).Ioctls
	for name, tc := range map[string]struct {
		machine Machine
		want    measure.Platform
		err     error
	}{
		"configfs beside a TPM":    {Machine{Kernel: denied(), TPM: chip}, "", syscall.EACCES},
		"a TPM":                    {Machine{Kernel: &tsmtest.Kernel{}, TPM: failingTPM{}}, "", syscall.EIO},
		"a TPM's NV indices":       {Machine{Kernel: &tsmtest.Kernel{}, TPM: failingTPM{chip, true}}, "", syscall.EIO},
		"a TPM beside SNP":         {Machine{Kernel: &tsmtest.Kernel{Provider: tsm.ProviderSNP}, TPM: failingTPM{}}, measure.SNP, nil},
		"configfs beside a device": {Machine{Kernel: withDevice, TPM: noTPM(t)}, measure.SNP, nil},
	} {
		g, err := Open(t.Context(), Config{Machine: tc.machine})
		switch {
		case tc.err != nil && (!errors.Is(err, ErrNone) || !errors.Is(err, tc.err)):
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		case tc.err == nil && (err != nil || g.Attester.Platform() != tc.want):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hclTPM has an HCL report, or what was put in its place.
type hclTPM struct {
	Chip
	report []byte
}

func (h hclTPM) ReadNV(context.Context, uint32) ([]byte, error) { return h.report, nil }

func TestAzure(t *testing.T) {
	chip := tpmdev.New(swtpmtest.Start(t))
	hcl := func(r azure.ReportType) []byte {
		return (&azure.HCLReport{Version: 2, RequestType: 2, Hash: eventlog.SHA256, Type: r, RuntimeData: []byte("{}")}).Marshal()
	}
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		report []byte
		want   measure.Platform
	}{
		"SNP":               {&tsmtest.Kernel{}, hcl(azure.ReportSNP), measure.AzSNPvTPM},
		"TDX":               {&tsmtest.Kernel{}, hcl(azure.ReportTDX), measure.AzTDXvTPM},
		"SNP's own device":  {&tsmtest.Kernel{Provider: tsm.ProviderSNP}, hcl(azure.ReportSNP), measure.SNP},
		"something else's":  {&tsmtest.Kernel{}, []byte("somebody's NV index"), measure.TPM},
		"hardware of later": {&tsmtest.Kernel{}, hcl(9), measure.TPM},
	} {
		g, err := Open(t.Context(), Config{Machine: Machine{Kernel: tc.kernel, TPM: hclTPM{chip, tc.report}}})
		if err != nil || g.Attester.Platform() != tc.want {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, exact := g.Attester.(measure.DigestAttester); exact != strings.HasPrefix(string(tc.want), "az-") {
			t.Errorf("%s: carries a digest as it is: %t", name, exact)
		}
	}
}

// rtmr is the file of a TD's register, by its number.
func rtmr(n string) string {
	return "sys/devices/virtual/misc/tdx_guest/measurements/rtmr" + n + ":sha384"
}

// tdGuest is a TD in memory, whose quotes hold as much as the attester looks at.
func tdGuest() *tsmtest.Kernel {
	k := &tsmtest.Kernel{Provider: tsm.ProviderTDX, Registers: map[string][]byte{}}
	for _, n := range []string{"0", "1", "2", "3"} {
		k.Registers[rtmr(n)] = make([]byte, 48)
	}
	k.Report = func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		q := make([]byte, 700)
		q[0], q[4] = 4, 0x81
		copy(q[48+520:], a.InBlob)
		return tsmtest.Blobs{Out: q}, nil
	}
	return k
}

var event = eventlog.RuntimeEvent{Domain: "test", Operation: "Say", Content: "hello"}

// What is recorded goes into the register and into the evidence, also into that
// of another program that only reads the log.
func TestRecord(t *testing.T) {
	kernel, path := tdGuest(), filepath.Join(t.TempDir(), "run", "log")
	m := Machine{Kernel: kernel, TPM: noTPM(t)}
	agent, err := Open(t.Context(), Config{Machine: m, RuntimeLog: path, Record: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Log.Extend(t.Context(), agent.RuntimePCR, event); err != nil {
		t.Fatal(err)
	}
	record, err := event.Event(4, eventlog.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	want := eventlog.Extend(eventlog.SHA384, make([]byte, 48), record.Digests[eventlog.SHA384])
	if !bytes.Equal(kernel.Registers[rtmr("3")], want) {
		t.Errorf("RTMR3 is %x", kernel.Registers[rtmr("3")])
	}
	reader, err := Open(t.Context(), Config{Machine: m, RuntimeLog: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Log.Extend(t.Context(), reader.RuntimePCR, event); !errors.Is(err, aael.ErrNotSupported) {
		t.Errorf("a reader extends: %v", err)
	}
	for name, g := range map[string]*Guest{"agent": agent, "reader": reader} {
		ev, err := g.Attester.Evidence(t.Context(), measure.ReportData{1})
		if err != nil {
			t.Fatal(err)
		}
		var w struct {
			Log string `json:"cc_eventlog"`
		}
		if err := json.Unmarshal(ev.Data, &w); err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(w.Log)
		if err != nil {
			t.Fatal(err)
		}
		log, err := eventlog.Parse(raw)
		if err != nil || !slices.ContainsFunc(log.Events, func(e eventlog.Event) bool { r, ok := e.Runtime(); return ok && r == event }) {
			t.Errorf("%s: the event is not in the evidence: %v", name, err)
		}
	}
}

// A platform without registers says so, and none is made up for it.
func TestNoRegisters(t *testing.T) {
	old := tdGuest()
	old.Registers = nil // Linux before 6.16
	for name, kernel := range map[string]*tsmtest.Kernel{
		"snp": {Provider: tsm.ProviderSNP}, "cca": {Provider: tsm.ProviderCCA}, "tdx": old,
	} {
		path := filepath.Join(t.TempDir(), "log")
		g, err := Open(t.Context(), Config{Machine: Machine{Kernel: kernel, TPM: noTPM(t)}, RuntimeLog: path, Record: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Log.Extend(t.Context(), g.RuntimePCR, event); !errors.Is(err, aael.ErrNotSupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The PCR that is meant for runtime events can be extended by the system.
func TestRuntimePCR(t *testing.T) {
	m := Machine{Kernel: &tsmtest.Kernel{}, TPM: tpmdev.New(swtpmtest.Start(t))}
	g, err := Open(t.Context(), Config{Machine: m, RuntimeLog: filepath.Join(t.TempDir(), "log"), Record: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Log.Extend(t.Context(), g.RuntimePCR, event); err != nil {
		t.Error(err)
	}
}

// This machine may have anything, but opening it must not fail in a third way.
func TestThisMachine(t *testing.T) {
	if _, probes, err := ThisMachine().find(t.Context(), ""); err != nil && !errors.Is(err, ErrNone) {
		t.Errorf("%v, %v", probes, err)
	}
}
