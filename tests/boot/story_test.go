package boot

import (
	"context"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// A guest that boots as foreseen, on a TPM that was enrolled, gets the keys of its
// image and its secret; one that differs in anything gets a ticket, behind which
// the administrator reads in what.
//
// The machine boots once. What differs in its init-data alone, or in nothing, goes on
// from there; what a firmware measures, and another TPM, takes a boot of its own.
func TestStory(t *testing.T) {
	t.Parallel()
	s := setStage(t, image(t, "initrd"), func(w *world.World) { w.Beside = sharing() })
	disk, err := s.AddDisk(diskSize)
	s.must(err)
	s.must(s.SaveUnread(t.Context()))
	for _, r := range []struct {
		name string
		try  func(context.Context) (world.Refusal, error)
	}{
		{"another command line", s.OtherMachineCommandLine},
		{"another initramfs", s.OtherMachineInitrd},
		{"other init-data", s.OtherMachineInitData},
		{"the TPM of another machine", s.OtherMachineTPM},
		{"an event log that does not replay", s.UnexplainedLog},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			refusal, err := r.try(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(refusal.Public, "pcr") {
				t.Errorf("the host is told what was wanted: %s", refusal.Public)
			}
			t.Logf("%s: %+v", refusal.Public, refusal.Explanation.Findings)
		})
	}
	t.Run("a pod", func(t *testing.T) {
		t.Parallel()
		s.runs(t, s.Booted())
	})
	t.Run("a pod of several containers", func(t *testing.T) {
		t.Parallel()
		s.sharesDisk(t, disk)
	})
}

// The same with the root on a disk, every block of which is checked.
func TestVerityStory(t *testing.T) { tellWhole(t, "verity") }

// The same as one file that the firmware starts from a disk.
func TestUnifiedStory(t *testing.T) { tellWhole(t, "uki") }

// tellWhole boots a form of the image, from the firmware to the secret.
func tellWhole(t *testing.T, form string) {
	t.Parallel()
	s := newStage(t, form)
	s.runs(t, s.Config())
}
