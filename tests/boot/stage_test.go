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
	*world.World
	guest    world.GuestImage
	tpm      string // state of the TPM as it was enrolled
	ref      string // of the image
	initData string // of the pod
	secret   string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{T: t, secret: "the word that only this guest may know"}
	var err error
	s.guest, err = world.OpenGuestImage(image(t))
	s.must(err)
	bin, err := filepath.Abs("../../bin")
	s.must(err)
	s.World, err = world.New(t.TempDir(), bin)
	s.must(err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.Host, s.AttestationPolicy = qemu.Gateway, "machine.rego"
	ctx := t.Context()
	s.tpm, err = s.NewTPM(ctx, "enrolled")
	s.must(err)
	keys, err := s.Enrol(ctx, s.tpm)
	s.must(err)
	s.BrokerConfig = world.EnrolledKeys(keys)
	s.must(s.StartBroker(ctx, nil))
	s.must(s.StartRegistry())
	source, err := s.SmallImage()
	s.must(err)
	s.ref, err = s.Encrypt(ctx, source, "demo/small:1")
	s.must(err)
	signer, err := s.Keygen(ctx, "shipper")
	s.must(err)
	s.must(s.Sign(ctx, s.ref, signer))
	s.must(s.Policies(ctx, signer, s.secret))
	s.initData, err = s.WriteInitData(ctx, "good", world.Pod{Image: s.ref})
	s.must(err)
	s.must(s.Foresee(ctx, s.guest, s.initData))
	return s
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// run runs the image in a booted guest and returns what its container says.
func (s *stage) run(cfg qemu.Config) (string, error) {
	s.Helper()
	ctx := s.Context()
	config, err := s.ImageConfig(ctx, s.ref)
	s.must(err)
	m, err := s.Boot(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() {
		if s.Failed() {
			console, _ := os.ReadFile(m.Console())
			s.Logf("the console:\n%s", console)
		}
		s.must(m.Stop())
	}()
	if err := m.Kata().Pod(ctx); err != nil {
		return "", err
	}
	if err := m.Kata().Container(ctx, "app", s.ref, config); err != nil {
		return "", err
	}
	return m.Kata().Output(ctx, "app", "done")
}
