package sev

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
)

// MaxVCPUs is the largest number of virtual processors that is predicted for.
const MaxVCPUs = 4096

// Launch is what an SEV or SEV-ES guest is started from.
type Launch struct {
	Firmware *ovmf.Firmware
	Hashes   *Hashes // nil: no kernel is loaded by the VMM
	// EncryptedState is true for SEV-ES, where the processors below are
	// measured too.
	EncryptedState bool
	VCPUs          int
	CPU            CPU // Features must be zero
}

// ErrNoKernelHashes says that a kernel was given to firmware that would boot
// it without measuring it.
var ErrNoKernelHashes = errors.New("the firmware does not measure kernel, initrd and command line")

// Predict returns the launch digest. What the firmware of the processor signs
// is a MAC over it and over values of the launch (measure.md a.6); a reference
// value is the digest.
func Predict(l Launch) (digest [sha256.Size]byte, err error) {
	if l.CPU.Features != 0 {
		return digest, errors.New("processors of SEV-ES have no guest features")
	}
	h := sha256.New()
	h.Write(l.Firmware.Raw())
	if l.Hashes != nil {
		if _, ok := l.Firmware.HashTable(); !ok {
			return digest, ErrNoKernelHashes
		}
		table := l.Hashes.Table()
		h.Write(table[:])
	}
	if l.EncryptedState {
		err := l.CPU.Each(l.VCPUs, l.Firmware, func(page []byte) { h.Write(page) })
		if err != nil {
			return digest, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Each calls f with the page of each of n processors, the boot processor first.
func (c CPU) Each(n int, firmware *ovmf.Firmware, f func(page []byte)) error {
	if n < 1 || n > MaxVCPUs {
		return fmt.Errorf("%d virtual processors, must be 1 to %d", n, MaxVCPUs)
	}
	page, err := c.VMSA(false, 0)
	if err != nil {
		return err
	}
	f(page[:])
	if n == 1 {
		return nil
	}
	reset, err := firmware.ResetAddress()
	if err != nil {
		return err
	}
	if page, err = c.VMSA(true, reset); err != nil {
		return err
	}
	for range n - 1 {
		f(page[:])
	}
	return nil
}
