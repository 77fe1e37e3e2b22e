package boot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// image is the folder with the guest image that `make test-boot` built.
func image(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("VOUCHSAFE_GUEST_IMAGE")
	if dir == "" {
		t.Skip("nothing is booted here: make test-boot does (VOUCHSAFE_GUEST_IMAGE names no guest image)")
	}
	return dir
}

// stage is a broker that knows one TPM, a registry with one image, and a guest
// image whose measurements were foreseen for one pod.
type stage struct {
	*testing.T
	*world.Fleet
	secret string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir := image(t)
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
	s := &stage{T: t, secret: "the word that only this guest may know"}
	s.Fleet, err = w.NewFleet(t.Context(), dir, qemu.TCG, s.secret)
	s.must(err)
	return s
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}
