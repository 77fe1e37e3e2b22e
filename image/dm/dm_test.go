package dm

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// What the kernel lacks is named: device-mapper itself, or a target of it.
func TestMissingDriver(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	d, err := Open("vouchsafe-test-missing", Target{Kind: "nosuch", Sectors: 8})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("device-mapper is not for tests here: %v", err)
	}
	want := "dm_nosuch"
	if Available() != nil {
		want = "dm_mod"
	}
	m, ok := errors.AsType[*driver.MissingError](err)
	if !ok || m.Modules[0] != want || fault.CodeOf(err) != fault.DriverMissing {
		t.Errorf("%v (%v), want %s", err, m, want)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	// A target that is there and dislikes its table is another matter.
	_, err = Open("vouchsafe-test-refused", Target{Kind: "linear", Sectors: 8, Params: "no such device"})
	if Available() == nil && (err == nil || fault.CodeOf(err) == fault.DriverMissing) {
		t.Error(err)
	}
}
