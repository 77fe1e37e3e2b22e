package boot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// image is one form of the guest image that `make test-boot` built.
func image(t *testing.T, form string) world.GuestImage {
	t.Helper()
	dir := os.Getenv("VOUCHSAFE_GUESTS")
	if dir == "" {
		t.Skip("nothing is booted here: make test-boot does (VOUCHSAFE_GUESTS names no guest images)")
	}
	return world.GuestImage{Dir: filepath.Join(dir, "boot", form), Key: filepath.Join(dir, "release.pub")}
}

// stage is a broker that knows one TPM, a registry with one image, and a guest
// image whose measurements were foreseen for one pod.
type stage struct {
	*testing.T
	*world.Fleet
	secret string
}

func newStage(t *testing.T, form string) *stage {
	t.Helper()
	return newJudgedStage(t, image(t, form), "")
}

// newJudgedStage has another attestation policy, of package world's.
func newJudgedStage(t *testing.T, guest world.GuestImage, policy string) *stage {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.New(t.TempDir(), bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	w.AttestationPolicy = policy
	s := &stage{T: t, secret: "the word that only this guest may know"}
	s.Fleet, err = w.NewFleet(t.Context(), guest, qemu.TCG, s.secret)
	s.must(err)
	return s
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}
