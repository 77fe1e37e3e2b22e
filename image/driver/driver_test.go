package driver

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// What the kernel says of a filesystem that it does not know becomes its name.
func TestFilesystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	const unknown = "nosuchfs"
	_, opened := unix.Fsopen(unknown, unix.FSOPEN_CLOEXEC)
	mounted := unix.Mount("none", t.TempDir(), unknown, 0, "")
	for how, err := range map[string]error{"fsopen": opened, "mount": mounted} {
		err = Filesystem(unknown, err)
		m, ok := errors.AsType[*MissingError](err)
		if fault.CodeOf(err) != fault.DriverMissing || !ok || !strings.Contains(m.Public(), unknown) || !strings.Contains(m.Public(), "kernel.later") {
			t.Errorf("%s: %v (%v)", how, err, m)
		}
	}
	if err := Filesystem("tmpfs", unix.Mount("none", "/nonexistent/place", "tmpfs", 0, "")); !errors.Is(err, unix.ENOENT) || fault.CodeOf(err) == fault.DriverMissing {
		t.Errorf("another error: %v", err)
	}
	if err := Filesystem("tmpfs", nil); err != nil {
		t.Error(err)
	}
}

// The private side keeps what the kernel said.
func TestMissing(t *testing.T) {
	err := error(Missing("dm_crypt", unix.EINVAL))
	if !errors.Is(err, unix.EINVAL) || err.Error() != "driver_missing" {
		t.Errorf("%v", err)
	}
	both := &MissingError{Modules: []string{"xts", "dm_crypt"}, Failed: true, Err: unix.EPERM}
	if text := both.Error(); !strings.Contains(text, "xts, dm_crypt") || !strings.Contains(text, unix.EPERM.Error()) {
		t.Error(text)
	}
}
