package azure

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

func TestCreateGuestRefuses(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	for name, c := range map[string]struct {
		platform measure.Platform
		launch   tpm.Launch
		dir      string
		want     string
	}{
		"another platform":     {measure.TDX, launch, filepath.Join(t.TempDir(), "g"), "not a platform of Azure"},
		"another vendor":       {measure.AzSNPvTPM, launch, filepath.Join(t.TempDir(), "g"), "vendor"},
		"no image":             {measure.AzTDXvTPM, tpm.Launch{}, filepath.Join(t.TempDir(), "g"), "the image is empty"},
		"a digest of 48 bytes": {measure.AzTDXvTPM, tpm.Launch{Image: []byte("x"), InitDataDigest: make([]byte, 48)}, filepath.Join(t.TempDir(), "g"), "use sha256"},
		"there is one":         {measure.AzTDXvTPM, launch, l.vendor + "-guest", "file exists"},
	} {
		if err := CreateGuest(c.platform, l.vendor, c.dir, c.launch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenSimulatorRefuses(t *testing.T) {
	l := newLab(t, measure.AzTDXvTPM)
	if _, err := OpenSimulator(l.vendor); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a vendor: %v", err)
	}
	for name, text := range map[string]string{
		"launch.json":  `{"platform":"tdx","vm_id":"","init_data":""}`,
		"ak.key":       "no key",
		"eventlog.bin": "no log",
	} {
		dir := filepath.Join(t.TempDir(), "guest")
		l.must(os.CopyFS(dir, os.DirFS(l.vendor+"-guest")))
		l.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		if _, err := OpenSimulator(dir); err == nil {
			t.Errorf("another %s is accepted", name)
		}
	}
}

func TestSimulatorOver(t *testing.T) {
	l := newLab(t, measure.AzSNPvTPM)
	ev, err := l.sim.Evidence(t.Context(), measure.ReportData{1})
	l.must(err)
	e, err := ParseEvidence(ev)
	l.must(err)
	if len(e.Quote.ExtraData) != 64 || e.Quote.ExtraData[0] != 1 {
		t.Errorf("bound to %x", e.Quote.ExtraData)
	}
	if _, err := l.sim.EvidenceOver(t.Context(), make([]byte, 65)); err == nil {
		t.Error("65 bytes are cut")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.sim.EvidenceOver(ctx, challenge); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
