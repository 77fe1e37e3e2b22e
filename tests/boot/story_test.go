package boot

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// A guest that boots as foreseen, on a TPM that was enrolled, gets the keys of its
// image and its secret.
func TestStory(t *testing.T) {
	s := newStage(t)
	out, err := s.run(s.guest.Config(qemu.TCG, s.tpm, s.initData))
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
}
