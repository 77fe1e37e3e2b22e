// Package qemu finds out what QEMU tells the firmware of a guest about its
// machine: the ACPI tables and what else a firmware reads through fw_cfg and
// measures. They depend on QEMU's version, the number of processors, memory and
// every device, so nothing but that QEMU knows them.
//
// It is asked without starting the guest ([Ask]), as any user and without a TEE.
// What it says is kept as files under the names they have in fw_cfg, so that who
// predicts need not be who has that QEMU.
package qemu

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/vouchsafe-cc/vouchsafe/measure/acpi"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
)

// Names in fw_cfg of what is measured as ACPI data.
const (
	loader  = "etc/table-loader"
	rsdp    = "etc/acpi/rsdp"
	tpmLog  = "etc/tpm/log" // where there is a TPM
	tables  = "etc/acpi/tables"
	maxFile = acpi.MaxSize // bytes
)

// Machine is what QEMU says of one machine: the files that are not empty. An
// empty one is not measured.
type Machine struct{ files map[string][]byte }

// names lists the files that are kept.
func names() []string {
	return append([]string{loader, rsdp, tpmLog, tables}, boot.ConfigurationItems()...)
}

// check refuses what has no tables, or broken ones.
func (m Machine) check() error {
	for _, name := range []string{loader, rsdp, tables} {
		if m.files[name] == nil {
			return fmt.Errorf("the machine has no %s", name)
		}
	}
	_, err := m.Processors()
	return err
}

// ACPI returns the tables as a firmware measures them.
func (m Machine) ACPI() []boot.Measured {
	return boot.Tables(m.files[loader], m.files[rsdp], m.files[tpmLog], m.files[tables])
}

// Configuration returns what else the firmware of a TD measures of fw_cfg.
func (m Machine) Configuration() []boot.Measured {
	out := []boot.Measured{}
	for _, name := range boot.ConfigurationItems() {
		if contents := m.files[name]; contents != nil {
			out = append(out, boot.ConfigurationItem(name, contents))
		}
	}
	return out
}

// HasTPM reports whether the machine has a TPM, which changes its tables.
func (m Machine) HasTPM() bool { return m.files[tpmLog] != nil }

// Processors is the number of processors that the machine starts with.
func (m Machine) Processors() (int, error) {
	all, err := acpi.Parse(m.files[tables])
	if err != nil {
		return 0, err
	}
	return acpi.Processors(all)
}

// Read reads a machine that [Machine.Write] wrote.
func Read(dir string) (m Machine, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	m.files = map[string][]byte{}
	for _, name := range names() {
		contents, err := readFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return m, err
		}
		if len(contents) > 0 {
			m.files[name] = contents
		}
	}
	return m, m.check()
}

func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	contents, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(contents) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return contents, err
}

// Write writes the machine into a new directory.
func (m Machine) Write(dir string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // for others to read
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for name, contents := range m.files {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, contents, 0o644); err != nil {
			return err
		}
	}
	return nil
}
