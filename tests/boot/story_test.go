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
func TestStory(t *testing.T) {
	s := newStage(t, "initrd")
	out, err := s.RunImage(t.Context(), s.Config())
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
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
func TestVerityStory(t *testing.T) {
	s := newStage(t, "verity")
	out, err := s.RunImage(t.Context(), s.Config())
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
}

// The same as one file that the firmware starts from a disk.
func TestUnifiedStory(t *testing.T) {
	s := newStage(t, "uki")
	out, err := s.RunImage(t.Context(), s.Config())
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
}
