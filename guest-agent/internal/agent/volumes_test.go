package agent

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// A guest whose disk for images is not there does not start with images in
// another place. That one which is there is used, make test-kernel shows.
func TestImageDiskMustBeThere(t *testing.T) {
	s := &settings.Settings{Agent: settings.Agent{ImageDisk: filepath.Join(t.TempDir(), "vdz")}}
	v := newVolumes(Options{StateDir: t.TempDir()}, s.Agent, slog.New(slog.DiscardHandler))
	if err := v.mountImageDisk(t.Context(), Options{StateDir: t.TempDir()}, s); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a disk that is not there: %v", err)
	}
	s.Agent.ImageDisk = ""
	if err := v.mountImageDisk(t.Context(), Options{StateDir: filepath.Join(t.TempDir(), "absent", "\x00")}, s); err != nil {
		t.Errorf("no disk is asked for: %v", err)
	}
	if err := v.close(t.Context()); err != nil {
		t.Error(err)
	}
}
