package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// lentAddress is none that a guest of these tests has by its command line.
const lentAddress = "10.0.2.77"

// The same as clouds start it: the firmware finds a disk, and a DHCP server lends the
// machine the address by which it reaches broker and registry. QEMU has one.
func TestDiskStory(t *testing.T) {
	t.Parallel()
	s := newStage(t, "disk")
	cfg := s.Config()
	cfg.Network = false
	cfg.ExtraDevices = append(cfg.ExtraDevices, "-netdev", "user,id=net,dhcpstart="+lentAddress, "-device", "virtio-net-pci,netdev=net,romfile=")
	if out := s.tells(cfg, "busybox ip address show dev eth0"); !strings.Contains(out, " "+lentAddress+"/24 ") {
		t.Errorf("the machine has another address: %q", out)
	}
}

// The same with a kernel that comes from no package.
func TestLongOwnKernel(t *testing.T) {
	long(t)
	modules, err := filepath.Glob(filepath.Join(os.Getenv("VOUCHSAFE_GUESTS"), "own/lib/modules/*"))
	if err != nil || len(modules) != 1 {
		t.Fatalf("make own-guest leaves one kernel: %v, %v", modules, err)
	}
	s := newStage(t, "own")
	if out := s.tells(s.Config(), "busybox uname -r"); !strings.Contains(out, "\n"+filepath.Base(modules[0])+"\n") {
		t.Errorf("another kernel runs than %s: %q", modules[0], out)
	}
}

// long skips what make test-boot has no time for.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("VOUCHSAFE_LONG") == "" {
		t.Skip("make test-boot-long runs this")
	}
}

// tells boots a machine from the firmware to a container that prints the secret, and
// after it what a command prints, and returns both.
func (s *stage) tells(cfg qemu.Config, command string) string {
	s.Helper()
	script := []string{"/bin/sh", "-c", "busybox wget -q -O - http://127.0.0.1:8006/cdh/resource/" + world.SecretResource + " && echo && " + command + " && echo done"}
	file, err := s.WriteInitData(s.Context(), "telling", world.Pod{Image: s.Ref, Command: script})
	s.must(err)
	s.must(s.KnowInitData(s.Context(), file))
	cfg.InitData = file
	out, err := s.RunImage(s.Context(), cfg, script...)
	if err != nil || !strings.Contains(out, s.secret) {
		s.Fatalf("%q, %v", out, err)
	}
	return out
}
