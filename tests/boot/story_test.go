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
// The machine boots once: what differs in its init-data alone, or in nothing, goes
// on from there. What the firmware measures, and a TPM, whose keys a snapshot
// brings along, take a boot of their own.
func TestStory(t *testing.T) {
	t.Parallel()
	s := newStage(t, "initrd")
	disk, err := s.AddDisk(diskSize)
	s.must(err)
	s.must(s.Save(t.Context()))
	out, err := s.RunImage(t.Context(), s.Booted())
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
	t.Run("a pod of several containers", func(t *testing.T) { s.sharesDisk(t, disk) })
	for _, r := range []struct {
		name string
		try  func(context.Context) (world.Refusal, error)
	}{
		{"other init-data", s.OtherMachineInitData},
		{"another command line", s.OtherMachineCommandLine},
		{"another initramfs", s.OtherMachineInitrd},
		{"the TPM of another machine", s.OtherMachineTPM},
		{"an event log that does not replay", s.UnexplainedLog},
	} {
		t.Run(r.name, func(t *testing.T) {
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
}

// The same with the root on a disk, every block of which is checked.
func TestVerityStory(t *testing.T) { tellWhole(t, "verity") }

// The same as one file that the firmware starts from a disk.
func TestUnifiedStory(t *testing.T) { tellWhole(t, "uki") }

// tellWhole boots a form of the image, from the firmware to the secret.
func tellWhole(t *testing.T, form string) {
	t.Parallel()
	s := newStage(t, form)
	out, err := s.RunImage(t.Context(), s.Config())
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
}
