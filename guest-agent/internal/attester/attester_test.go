package attester

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// Nothing found is an error, and so is a device that is not what was named.
func TestNoFallback(t *testing.T) {
	bare := obtain.Machine{Kernel: &tsmtest.Kernel{}, TPM: tpmdev.New(tpmdev.File(filepath.Join(t.TempDir(), "tpmrm0")))}
	for name, tc := range map[string]struct {
		o    Options
		none bool
	}{
		"nothing named":     {Options{}, true},
		"auto":              {Options{Platform: Auto}, true},
		"not there":         {Options{Platform: "tdx"}, true},
		"sample":            {Options{Platform: "sample"}, true},
		"no such guest":     {Options{SimulatedSNP: filepath.Join(t.TempDir(), "none")}, false},
		"not a guest":       {Options{SimulatedSNP: t.TempDir()}, false},
		"simulated and tdx": {Options{SimulatedSNP: t.TempDir(), Platform: "tdx"}, false},
		"no such TD":        {Options{SimulatedTDX: filepath.Join(t.TempDir(), "none")}, false},
		"simulated TD, snp": {Options{SimulatedTDX: t.TempDir(), Platform: "snp"}, false},
		"relative log":      {Options{RuntimeLog: "log"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.Logger = slog.New(slog.DiscardHandler)
			g, err := open(t.Context(), tc.o, bare)
			if err == nil || g != nil || errors.Is(err, ErrNone) != tc.none {
				t.Fatalf("got %v, %v", g, err)
			}
		})
	}
}

// configfs is the kernel of a TD whose only register is RTMR3.
func configfs() (*tsmtest.Kernel, string) {
	const rtmr3 = "sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"
	return &tsmtest.Kernel{Provider: tsm.ProviderTDX, Registers: map[string][]byte{rtmr3: make([]byte, 48)}}, rtmr3
}

func TestRecorder(t *testing.T) {
	kernel, rtmr3 := configfs()
	machine := obtain.Machine{Kernel: kernel, TPM: tpmdev.New(tpmdev.File(filepath.Join(t.TempDir(), "tpmrm0")))}
	var log bytes.Buffer
	o := Options{RuntimeLog: filepath.Join(t.TempDir(), "log"), Record: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	g, err := open(t.Context(), o, machine)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "platform=tdx") || !strings.Contains(log.String(), "configfs-tsm") {
		t.Errorf("the log does not tell what was found: %s", &log)
	}
	for _, pcr := range []int{1, 24} {
		if _, err := NewRecorder(g, pcr); err == nil || errors.Is(err, aael.ErrNotSupported) {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
	for range 2 { // for an agent that starts again
		r, err := NewRecorder(g, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := kernel.Registers[rtmr3]
		if err := r.Record(t.Context(), eventlog.RuntimeEvent{Domain: "d", Operation: "o"}); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(kernel.Registers[rtmr3], before) {
			t.Error("RTMR3 is not extended")
		}
	}
	kernel.Registers = nil
	o.RuntimeLog = filepath.Join(t.TempDir(), "log")
	if g, err = open(t.Context(), o, machine); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRecorder(g, 0); !errors.Is(err, aael.ErrNotSupported) {
		t.Errorf("an old kernel: %v", err)
	}
}

// The simulated guest is loud, gives evidence that verifies only where its root
// is named, and knows what init-data it was launched with.
func TestSimulated(t *testing.T) {
	dir := t.TempDir()
	vendor, guest := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	doc, err := initdata.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha512\"\n[data]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := snp.CreateVendor(vendor, "Genoa"); err != nil {
		t.Fatal(err)
	}
	if err := snp.CreateGuest(vendor, guest, snp.Launch{Image: []byte("agent"), InitDataDigest: doc.Digest()}); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	g, err := Open(t.Context(), Options{SimulatedSNP: guest, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log.Bytes(), []byte("level=WARN")) {
		t.Errorf("not loud: %q", log.String())
	}
	if err := settings.CheckBinding(t.Context(), doc, g.Attester); err != nil {
		t.Errorf("own init-data: %v", err)
	}
	if err := settings.CheckBinding(t.Context(), nil, g.Attester); err == nil {
		t.Error("withheld init-data passes")
	}
	// What the owner wrote once, for another pod or before, is not for this launch,
	// under the same algorithm or another one.
	for _, text := range []string{
		"version = \"0.1.0\"\nalgorithm = \"sha512\"\n[data]\n\"policy.rego\" = \"package old\"\n",
		"version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n",
		"version = \"0.1.0\"\nalgorithm = \"sha512\"\n\n[data]\n",
	} {
		replayed, err := initdata.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := settings.CheckBinding(t.Context(), replayed, g.Attester); fault.CodeOf(err) != fault.InitDataMismatch {
			t.Errorf("replayed init-data %q: %v", text, err)
		}
	}

	data, err := measure.NewReportData([]byte("nonce"))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := g.Attester.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(vendor, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	want := measure.Expected{ReportData: measure.BoundTo(data[:]), InitData: measure.BoundTo(doc.Digest())}
	for name, tc := range map[string]struct {
		roots []snp.SimulatedRoot
		ok    bool
	}{
		"root named":     {[]snp.SimulatedRoot{{Name: "test", Bundle: root}}, true},
		"root not named": {nil, false},
	} {
		v, err := snp.NewVerifier(snp.VerifierConfig{UnsafeSimulatedRoots: tc.roots})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = v.Verify(t.Context(), ev, want); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A simulated TD is as loud, and knows its init-data too.
func TestSimulatedTDX(t *testing.T) {
	dir := t.TempDir()
	vendor, guest := filepath.Join(dir, "vendor"), filepath.Join(dir, "guest")
	doc, err := initdata.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := dcap.CreateVendor(vendor); err != nil {
		t.Fatal(err)
	}
	if err := tdx.CreateGuest(vendor, guest, tdx.Launch{Image: []byte("agent"), InitDataDigest: doc.Digest()}); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	g, err := Open(t.Context(), Options{SimulatedTDX: guest, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	if g.Attester.Platform() != measure.TDX || !bytes.Contains(log.Bytes(), []byte("platform=tdx")) {
		t.Errorf("%s, and it says %q", g.Attester.Platform(), log.String())
	}
	if err := settings.CheckBinding(t.Context(), doc, g.Attester); err != nil {
		t.Errorf("own init-data: %v", err)
	}
	if err := settings.CheckBinding(t.Context(), nil, g.Attester); err == nil {
		t.Error("withheld init-data passes")
	}
}
