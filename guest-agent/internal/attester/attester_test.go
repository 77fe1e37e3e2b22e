package attester

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

func TestNoFallback(t *testing.T) {
	for name, dir := range map[string]string{"nothing named": "", "no such guest": filepath.Join(t.TempDir(), "none"), "not a guest": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			a, err := Open(Options{SimulatedSNP: dir, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || a != nil {
				t.Fatalf("got %v, %v", a, err)
			}
			if dir == "" && !errors.Is(err, ErrNone) {
				t.Fatalf("got %v, want ErrNone", err)
			}
		})
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
	a, err := Open(Options{SimulatedSNP: guest, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log.Bytes(), []byte("level=WARN")) {
		t.Errorf("not loud: %q", log.String())
	}
	if err := settings.CheckBinding(doc, a); err != nil {
		t.Errorf("own init-data: %v", err)
	}
	if err := settings.CheckBinding(nil, a); err == nil {
		t.Error("withheld init-data passes")
	}

	data, err := measure.NewReportData([]byte("nonce"))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Evidence(t.Context(), data)
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
