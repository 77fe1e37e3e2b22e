package snp

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
)

// VM is what determines the launch measurement of a virtual machine: nothing
// else does. Memory size, devices, ACPI tables and host data are not measured
// by SEV-SNP (measure.md a.11).
type VM struct {
	// Firmware is the whole file, or its end if FirmwareDigest is given.
	Firmware *ovmf.Firmware
	// FirmwareDigest is the launch digest after the pages of the firmware, as
	// [FirmwareDigest] returns it; nil computes it.
	FirmwareDigest *[48]byte
	// Hashes is nil if the VMM loads no kernel.
	Hashes *sev.Hashes
	VCPUs  int
	CPU    sev.CPU
	// SVSM is the secure service module that runs before the firmware, or nil.
	SVSM *SVSM
	// PhysBits is the width of guest physical addresses; 0 means 48. Only under
	// GCE does it move a measured page.
	PhysBits int
}

// SVSM is a COCONUT-SVSM image of the form before IGVM (measure.md a.8).
type SVSM struct {
	Image *ovmf.Firmware
	// VariablesSize is the size of the firmware's variable store in bytes; the
	// image ends below it.
	VariablesSize uint32
}

// vmsaGPA is where KVM puts the VMSA of every processor.
const vmsaGPA = 0xffff_ffff_f000

// FirmwareDigest returns the launch digest after the pages of the firmware.
// With it a prediction needs of the firmware no more than its last pages.
func FirmwareDigest(f *ovmf.Firmware) [48]byte {
	var d launchDigest
	d.addData(pageNormal, f.GPA(), f.Raw())
	return d
}

// start is the digest after the pages of the firmware.
func (vm VM) start() launchDigest {
	if vm.FirmwareDigest != nil {
		return *vm.FirmwareDigest
	}
	return FirmwareDigest(vm.Firmware)
}

// PredictVM returns the launch measurement of a virtual machine.
func PredictVM(vm VM) (measurement [48]byte, err error) {
	if vm.Firmware == nil {
		return measurement, errors.New("no firmware given")
	}
	d := vm.start()
	if vm.SVSM != nil {
		err = vm.addSVSM(&d)
	} else {
		err = vm.addGuest(&d)
	}
	return d, err
}

// PredictCounts returns the measurements for 1 to n virtual processors, whatever
// VCPUs says. It costs hardly more than the last of them.
func PredictCounts(vm VM, n int) ([][48]byte, error) {
	if vm.Firmware == nil || vm.SVSM != nil {
		return nil, errors.New("predicted for a firmware without an SVSM only")
	}
	d := vm.start()
	if err := vm.addSections(&d, vm.Firmware); err != nil {
		return nil, err
	}
	gpa, err := vm.stateGPA()
	if err != nil {
		return nil, err
	}
	out := make([][48]byte, 0, max(n, 0))
	err = vm.addStates(&d, gpa, n, func(d launchDigest) { out = append(out, d) })
	return out, err
}

func (vm VM) addGuest(d *launchDigest) error {
	if err := vm.addSections(d, vm.Firmware); err != nil {
		return err
	}
	gpa, err := vm.stateGPA()
	if err != nil {
		return err
	}
	return vm.addStates(d, gpa, vm.VCPUs, func(launchDigest) {})
}

// addStates adds the page of each of n processors and reports every digest on
// the way. Application processors have the same page, which is hashed once.
func (vm VM) addStates(d *launchDigest, gpa uint64, n int, f func(launchDigest)) error {
	var last []byte
	var contents [48]byte
	return vm.CPU.Each(n, vm.Firmware, func(page []byte) {
		if !bytes.Equal(page, last) {
			last, contents = bytes.Clone(page), sha512.Sum384(page)
		}
		d.add(pageVMSA, gpa, contents)
		f(*d)
	})
}

// stateGPA is the address of all VMSA pages: the last page of memory there can
// be under GCE, a constant elsewhere.
func (vm VM) stateGPA() (uint64, error) {
	bits := vm.PhysBits
	if bits == 0 {
		bits = 48
	}
	if bits < 36 || bits > 52 {
		return 0, fmt.Errorf("guest physical addresses of %d bits, must be 36 to 52", bits)
	}
	if vm.CPU.VMM == sev.GCE {
		return 1<<bits - pageSize, nil
	}
	return vmsaGPA, nil
}

// addSections adds what the SEV metadata of the firmware, or of the SVSM, asks
// for, in the order of the table. EC2 adds CPUID pages after all others.
func (vm VM) addSections(d *launchDigest, f *ovmf.Firmware) error {
	sections, err := f.SEVSections()
	if err != nil {
		return err
	}
	late := vm.CPU.VMM == sev.EC2 || vm.CPU.VMM == sev.EC2Legacy
	hashed := false
	for _, s := range sections {
		if s.Size == 0 || s.Type == ovmf.SEVCPUID && late {
			continue
		}
		hashed = hashed || s.Type == ovmf.SEVKernelHashes
		if err := vm.addSection(d, f, s); err != nil {
			return err
		}
	}
	for _, s := range sections {
		if late && s.Size != 0 && s.Type == ovmf.SEVCPUID {
			d.add(pageCPUID, uint64(s.GPA), [48]byte{})
		}
	}
	if vm.Hashes != nil && !hashed {
		return sev.ErrNoKernelHashes
	}
	return nil
}

func (vm VM) addSection(d *launchDigest, f *ovmf.Firmware, s ovmf.SEVSection) error {
	gpa := uint64(s.GPA)
	switch s.Type {
	case ovmf.SEVSecrets:
		d.add(pageSecrets, gpa, [48]byte{})
		return nil
	case ovmf.SEVCPUID:
		d.add(pageCPUID, gpa, [48]byte{})
		return nil
	case ovmf.SEVKernelHashes:
		if vm.Hashes != nil {
			return vm.addHashes(d, f, s)
		}
	case ovmf.SEVMemory:
		if vm.CPU.VMM == sev.GCE {
			d.addEmpty(pageUnmeasured, gpa, s.Size)
			return nil
		}
	case ovmf.SEVSVSMCallArea:
	}
	d.addEmpty(pageZero, gpa, s.Size)
	return nil
}

// addHashes adds the page with the kernel-hashes table. The section says which
// page, the firmware's table of GUIDs where in it.
func (vm VM) addHashes(d *launchDigest, f *ovmf.Firmware, s ovmf.SEVSection) error {
	area, ok := f.HashTable()
	offset := area.GPA % pageSize
	if !ok || s.Size != pageSize || offset+sev.TableSize > pageSize {
		return fmt.Errorf("%w: no place for the kernel hashes", ovmf.ErrFirmware)
	}
	var page [pageSize]byte
	table := vm.Hashes.Table()
	copy(page[offset:], table[:])
	d.add(pageNormal, uint64(s.GPA), sha512.Sum384(page[:]))
	return nil
}

func (vm VM) addSVSM(d *launchDigest) error {
	switch {
	case vm.Hashes != nil:
		return errors.New("an SVSM of this form does not boot a kernel that the VMM loads")
	case vm.CPU.VMM != sev.QEMU:
		return fmt.Errorf("an SVSM under VMM %q is not known", vm.CPU.VMM)
	case vm.VCPUs < 1 || vm.VCPUs > sev.MaxVCPUs:
		return fmt.Errorf("%d virtual processors, must be 1 to %d", vm.VCPUs, sev.MaxVCPUs)
	}
	image := vm.SVSM.Image
	below := uint64(vm.SVSM.VariablesSize) + uint64(len(image.Raw()))
	if vm.SVSM.VariablesSize%pageSize != 0 || below > vm.Firmware.GPA() {
		return errors.New("the SVSM does not fit below the firmware")
	}
	gpa := vm.Firmware.GPA() - below
	d.addData(pageNormal, gpa, image.Raw())
	if err := vm.addSections(d, image); err != nil {
		return err
	}
	entry, err := image.SVSMEntry()
	if err != nil {
		return err
	}
	page := sev.SVSMVMSA(gpa+uint64(entry), vm.CPU.FPU)
	contents := sha512.Sum384(page[:])
	for range vm.VCPUs {
		d.add(pageVMSA, vmsaGPA, contents)
	}
	return nil
}

// addEmpty adds pages whose contents do not count.
func (d *launchDigest) addEmpty(t pageType, gpa uint64, size uint32) {
	for end := gpa + uint64(size); gpa < end; gpa += pageSize {
		d.add(t, gpa, [48]byte{})
	}
}
