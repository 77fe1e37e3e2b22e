package qemu

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Open fills in what a folder that `rootfs build` wrote says of the machine: one
// of the forms, with its whole command line.
func (c *Config) Open(dir string) error {
	bootable := filepath.Join(dir, "disk.img")
	if _, err := os.Stat(bootable); err == nil {
		c.Bootable = bootable
		return nil
	}
	uki := filepath.Join(dir, "guest.efi")
	if _, err := os.Stat(uki); err == nil {
		c.UKI = uki
		return nil
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return err
	}
	c.Kernel, c.Initrd = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")
	c.CommandLine = strings.TrimSuffix(string(line), "\n")
	disk := filepath.Join(dir, "rootfs.img")
	_, err = os.Stat(disk)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.Disk = disk
	return err
}
