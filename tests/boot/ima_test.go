package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// A guest whose kernel measures what it executes proves by PCR 10 what that was: the
// broker reads in the list which agent it runs, and, beside the files, which kernel.
// With another agent wanted it is refused. The root is on a disk: Linux's own policy leaves out what lies in memory,
// so of an initramfs, which PCR 9 has as a whole, it measures nothing.
func TestMeasuredFiles(t *testing.T) {
	t.Parallel()
	s := setStage(t, image(t, "verity"), func(w *world.World) { w.AttestationPolicy = "measured.rego" })
	s.must(s.KnowMeasured(t.Context(), filepath.Join(os.Getenv("VOUCHSAFE_GUESTS"), "guest-agent")))
	s.must(s.Save(t.Context()))
	out, err := s.RunImage(t.Context(), s.Booted())
	if err != nil {
		r, _ := s.Refused(t.Context(), err, fault.PolicyDenied)
		t.Fatalf("%v\n%+v", err, r.Explanation.Findings)
	}
	if !strings.Contains(out, s.secret) {
		t.Errorf("the container says %q", out)
	}
	s.must(s.KnowAgent(t.Context(), filepath.Join(s.Bin, "kbsctl")))
	_, err = s.RunImage(t.Context(), s.Booted())
	r, err := s.Refused(t.Context(), err, fault.PolicyDenied)
	s.must(err)
	f, err := r.Finding("ima.files")
	s.must(err)
	t.Logf("%+v", f)
}
