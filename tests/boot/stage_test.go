package boot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// tpms is a directory with the one enrolled TPM of all stages.
var tpms string

func TestMain(m *testing.M) {
	var err error
	if tpms, err = os.MkdirTemp("", "tpms-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(tpms)
	os.Exit(code)
}

var enrol = sync.OnceValue(func() error {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return err
	}
	w, err := world.New(tpms, bin)
	if err != nil {
		return err
	}
	_, _, err = w.EnrolledTPM(context.Background())
	return err
})

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
	return setStage(t, image(t, form), nil)
}

// setStage has whatever else the guests need, which prepare tells the world.
func setStage(t *testing.T, guest world.GuestImage, prepare func(*world.World)) *stage {
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
	w.Tell, w.TPMs = t.Logf, tpms
	if err := enrol(); err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(w)
	}
	s := &stage{T: t, secret: "the word that only this guest may know"}
	begin := time.Now()
	s.Fleet, err = w.NewFleet(t.Context(), guest, qemu.TCG, s.secret)
	s.must(err)
	t.Logf("the stage was set in %.2f s", time.Since(begin).Seconds())
	return s
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// runs has a machine run the image, which must say the secret.
func (s *stage) runs(t *testing.T, cfg qemu.Config) {
	t.Helper()
	out, err := s.RunImage(t.Context(), cfg)
	if err != nil || !strings.Contains(out, s.secret) {
		t.Fatalf("%q, %v", out, err)
	}
}
