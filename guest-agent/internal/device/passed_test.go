package device

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseFunction(t *testing.T) {
	if f, err := ParseFunction("0000:3b:00.0=02/00"); err != nil || f.Host != "0000:3b:00.0" || len(f.at) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	var invalid *InvalidError
	for _, text := range []string{
		"", "=", "0000:3b:00.0", "0000:3b:00.0=", "=02/00", "3b:00.0=02", "0000:3b:00.8=02", "0000:3B:00.0=02", "0000:3b:00.0=02=03", "0000:3b:00.0=../..",
		"0000:3b:00.0=" + strings.Repeat("02/", 255) + "02",
	} {
		if f, err := ParseFunction(text); !errors.As(err, &invalid) {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
}

func FuzzParseFunction(f *testing.F) {
	f.Add("0000:3b:00.0=02/00.7")
	f.Add("0000:3b:00.0=" + strings.Repeat("ff/", 255))
	f.Add("=")
	f.Fuzz(func(t *testing.T, text string) {
		if fn, err := ParseFunction(text); err == nil && (len(fn.at) == 0 || len(fn.at) > maxBridges || !strings.HasPrefix(text, fn.Host+"=")) {
			t.Fatalf("%q became %+v", text, fn)
		}
	})
}

// A function is there when a driver of the guest's kernel has taken it.
func TestFindFunction(t *testing.T) {
	e := newEvents()
	tr := tree{t, t.TempDir()}
	f := New(Config{Root: tr.root, Timeout: 150 * time.Millisecond, Listen: func() (Events, error) { return e, nil }})
	fn, err := ParseFunction("0000:3b:00.0=02/00")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.FindFunction(t.Context(), fn); !errors.Is(err, ErrTimeout) {
		t.Errorf("none there: %v", err)
	}
	const at = "/sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0"
	tr.write("/sys/devices/pci0000:00/0000:00:02.0/pci_bus/0000:01/power", "")
	tr.write(at+"/class", "0x030200")
	tr.write("/sys/bus/pci/drivers_probe", "")
	if _, err := f.FindFunction(t.Context(), fn); !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "no driver") {
		t.Errorf("without a driver: %v", err)
	}
	if raw, err := os.ReadFile(tr.root + "/sys/bus/pci/drivers_probe"); err != nil || string(raw) != "0000:01:00.0" {
		t.Errorf("the kernel was asked for a driver of %q, %v", raw, err)
	}
	if err := os.Symlink("../../drivers/some", filepath.Join(tr.root, at, "driver")); err != nil {
		t.Fatal(err)
	}
	if got, err := f.FindFunction(t.Context(), fn); err != nil || got != "0000:01:00.0" {
		t.Errorf("%q, %v", got, err)
	}
	tr.write(at+"/virtio3/device", "")
	var invalid *InvalidError
	if got, err := f.FindFunction(t.Context(), fn); !errors.As(err, &invalid) {
		t.Errorf("a virtio device: %q, %v", got, err)
	}
}
