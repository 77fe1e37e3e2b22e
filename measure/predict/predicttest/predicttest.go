// Package predicttest makes the files of a virtual machine for tests: firmware,
// kernel, initrd, and what QEMU would say of its machine. They have the forms of
// real ones and nothing in them that would run.
package predicttest

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
)

// Tables are ACPI tables that list so many processors.
func Tables(processors int) []byte {
	const head = 44
	apic := make([]byte, head)
	copy(apic, "APIC")
	for i := range processors {
		apic = append(apic, 0, 8, byte(i), byte(i), 1, 0, 0, 0)
	}
	binary.LittleEndian.PutUint32(apic[4:], uint32(len(apic)))
	return append(apic, make([]byte, 100)...)
}

// WriteMachine writes what QEMU would say of a machine, as package qemu keeps
// it.
func WriteMachine(dir string, processors int, tpm bool) error {
	files := map[string][]byte{
		"etc/acpi/tables": Tables(processors), "etc/acpi/rsdp": []byte("RSD PTR "), "etc/table-loader": []byte("loader"),
		"BootMenu": {0, 0}, "bootorder": []byte("/rom@genroms/linuxboot_dma.bin\x00"),
	}
	if tpm {
		files["etc/tpm/log"] = make([]byte, 64)
	}
	return write(dir, files)
}

// Write writes OVMF.fd, vmlinuz, initrd.img and the directory machine, of two
// processors and no TPM.
func Write(dir string) error {
	err := write(dir, map[string][]byte{
		"OVMF.fd": ovmftest.Build(ovmftest.Default()), "vmlinuz": boottest.Kernel([]byte("kernel")), "initrd.img": bytes.Repeat([]byte("initrd"), 1000),
	})
	if err != nil {
		return err
	}
	return WriteMachine(filepath.Join(dir, "machine"), 2, false)
}

func write(dir string, files map[string][]byte) error {
	for name, contents := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, contents, 0o600); err != nil {
			return err
		}
	}
	return nil
}
