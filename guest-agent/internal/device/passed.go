package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A Function is a PCI function that the host passes through (kata-agent 2.13).
type Function struct {
	Host string // its address on the host: domain:bus:device.function
	at   []slot
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// ParseFunction reads what a runtime writes: the address that the function has on
// the host, and its PCI path in the guest, such as "0000:3b:00.0=02/00".
func ParseFunction(text string) (Function, error) {
	host, path, ok := strings.Cut(text, "=")
	at, isPath := parsePath(path)
	if !ok || !isPath || !pciAddress.MatchString(host) {
		return Function{}, invalidf("%.64q does not say which function is passed through, and where", text)
	}
	return Function{host, at}, nil
}

// FindFunction waits for a function that is passed through, and for a driver of
// the guest's kernel to take it. It returns the function's address in the guest.
// Virtio devices are not passed through: they are the guest's own.
func (f *Finder) FindFunction(ctx context.Context, fn Function) (address string, err error) {
	what := "the function that is " + fn.Host + " on the host"
	probed, driverless := false, false
	err = f.until(ctx, what, "pci", func() (bool, error) {
		dir, err := f.function(fn.at)
		if err != nil || dir == "" {
			return false, err
		}
		if _, err := os.Stat(dir); err != nil {
			return false, absent(err)
		}
		if virtio, err := only(dir, "virtio"); err != nil || virtio != "" {
			return false, errors.Join(err, invalidf("%s is a virtio device", filepath.Base(dir)))
		}
		address = filepath.Base(dir)
		if _, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			return true, nil
		}
		driverless = true
		if !probed { // a driver that came after the device does not look for it by itself
			probed = true
			err = absent(os.WriteFile(f.sys("bus/pci/drivers_probe"), []byte(address), 0))
		}
		return false, err
	})
	if driverless && errors.Is(err, ErrTimeout) {
		return "", fmt.Errorf("no driver of the guest's kernel takes %s: %w", address, err)
	}
	if err != nil {
		return "", err
	}
	return address, nil
}

// absent makes nothing of what is not there yet.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
