package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// initDataFile is where the field's agent leaves the document (kata-agent 3.4).
const initDataFile = "/run/confidential-containers/initdata/initdata.toml"

var errTwice = errors.New("two disks hold init-data")

// StoreInitData looks for the disk that brings init-data, and writes the document
// to a file, which it returns; empty if no disk has one. A disk that says that it
// does and then does not ends the boot, and so does a second one: the guest would
// have to choose what it was configured by.
func StoreInitData() (string, error) {
	document, err := findInitData("/sys/block", "/dev")
	if err != nil || document == nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(initDataFile), 0o700); err != nil {
		return "", err
	}
	return initDataFile, os.WriteFile(initDataFile, document, 0o600)
}

// findInitData returns nil if there is none. Only whole disks are looked at, as
// the field does: vd* and sd*.
func findInitData(block, dev string) (document []byte, err error) {
	disks, err := os.ReadDir(block)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := ""
	for _, d := range disks {
		if name := d.Name(); strings.HasPrefix(name, "vd") || strings.HasPrefix(name, "sd") {
			raw, err := readDisk(filepath.Join(dev, name))
			if errors.Is(err, initdata.ErrNotInitData) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if found != "" {
				return nil, fmt.Errorf("%w: %s and %s", errTwice, found, name)
			}
			found, document = name, raw
		}
	}
	return document, nil
}

func readDisk(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return initdata.ReadDevice(f)
}

// bindOver puts a file in the place of another, which may be read-only. Without
// that other there is nobody who reads it.
func bindOver(file, target string) error {
	err := unix.Mount(file, target, "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
