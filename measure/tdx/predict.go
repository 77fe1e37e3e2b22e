package tdx

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
)

// BuildOrder is the order in which a VMM adds and extends the pages of a
// firmware. It changes MRTD (measure.md b.1).
type BuildOrder string

// The two orders.
const (
	// SinglePass extends each page when it is added: KVM from Linux 6.16 on,
	// with upstream's QEMU.
	SinglePass BuildOrder = "single-pass"
	// TwoPass adds all pages of a section before it extends them: the forks of
	// QEMU before.
	TwoPass BuildOrder = "two-pass"
)

const (
	pageSize  = 4096 // bytes
	chunkSize = 256  // bytes that one TDH.MR.EXTEND covers
)

// MRTD returns the measurement of a TD's firmware. Nothing but the firmware and
// the order determines it.
func MRTD(f *ovmf.Firmware, order BuildOrder) (mrtd [48]byte, err error) {
	if order != SinglePass && order != TwoPass {
		return mrtd, fmt.Errorf("build order %q is not known", order)
	}
	sections, err := f.TDXSections()
	if err != nil {
		return mrtd, err
	}
	b := builder{sha512.New384()}
	for _, s := range sections {
		if s.Augmented {
			continue
		}
		for at := uint64(0); at < s.MemorySize; at += pageSize {
			b.record("MEM.PAGE.ADD", s.GPA+at)
			if s.Extend && order == SinglePass {
				b.extend(s, at)
			}
		}
		if !s.Extend || order == SinglePass {
			continue
		}
		for at := uint64(0); at < s.MemorySize; at += pageSize {
			b.extend(s, at)
		}
	}
	return [48]byte(b.Sum(nil)), nil
}

// builder hashes what the TDX module hashes while a TD is built.
type builder struct{ hash.Hash }

// record is the 128 bytes of an operation on guest memory.
func (b builder) record(operation string, gpa uint64) {
	var r [128]byte
	copy(r[:16], operation)
	binary.LittleEndian.PutUint64(r[16:], gpa)
	b.Write(r[:])
}

// extend hashes the page at an offset of a section.
func (b builder) extend(s ovmf.TDXSection, offset uint64) {
	var page [pageSize]byte
	if offset < uint64(len(s.Data)) {
		copy(page[:], s.Data[offset:])
	}
	for at := 0; at < pageSize; at += chunkSize {
		b.record("MR.EXTEND", s.GPA+offset+uint64(at))
		b.Write(page[at : at+chunkSize])
	}
}

// TD is what determines the runtime registers of a TD under QEMU after its
// boot.
type TD struct {
	Firmware *ovmf.Firmware
	Memory   uint64 // bytes
	Machine  boot.Machine
	// Runtime is what the guest extends afterwards.
	Runtime []eventlog.RuntimeEvent
}

// Registers of a TD by their index in a CCEL; RTMR n has index n + 1.
const (
	firstMR = 1
	lastMR  = 4
)

// Events returns what the runtime registers are extended by, in the order of
// the CCEL. The PCR of an event is the register's name in the firmware
// (UEFI 2.11, 38.4.1).
func (td TD) Events() ([]boot.Event, error) {
	if td.Firmware == nil {
		return nil, errors.New("no firmware given")
	}
	if _, err := td.Machine.Events(); err != nil { // says what is wrong with a machine
		return nil, err
	}
	out := []boot.Event{td.hobEvent()}
	variables, err := td.variableStore()
	if err != nil {
		return nil, err
	}
	out = append(out, variables...)
	out = append(out, td.Machine.ConfigurationEvents()...)
	out = append(out, td.Machine.SecureBootEvents()...)
	out = append(out, td.Machine.ACPIEvents()...)
	if image, ok := td.Machine.ImageEvent(); ok {
		out = append(out, image)
	}
	out = append(out, td.Machine.OptionEvents()...)
	call, separator := boot.CallEvents(4)
	out = append(out, call, separator)
	started, err := td.Machine.StartEvents()
	if err != nil {
		return nil, err
	}
	out = append(out, started...)
	for _, r := range td.Runtime {
		e, err := boot.RuntimeEvent(r)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Registers returns RTMR0 to RTMR3 of the events.
func Registers(events []boot.Event) ([4]boot.Register, error) {
	var out [4]boot.Register
	byIndex, err := boot.Replay(events, eventlog.SHA384, eventlog.MRIndex)
	if err != nil {
		return out, err
	}
	for i := firstMR; i <= lastMR; i++ {
		r, ok := byIndex[i]
		if !ok {
			r.Value = eventlog.Initial(0, eventlog.SHA384)
		}
		out[i-firstMR] = r
	}
	return out, nil
}

// CCEL returns the events as the log of a boot. Digests that are not known are
// absent.
func CCEL(events []boot.Event) *eventlog.Log {
	l := eventlog.NewCCEL()
	boot.Log(l, events, eventlog.MRIndex)
	return l
}

// variableStore is the variable store as it was built into the firmware.
func (td TD) variableStore() ([]boot.Event, error) {
	sections, err := td.Firmware.TDXSections()
	if err != nil {
		return nil, err
	}
	var out []boot.Event
	for _, s := range sections {
		if s.Type != ovmf.TDXVariables {
			continue
		}
		data := append([]byte{41}, "Fv(XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX)\x00"...)
		data = binary.LittleEndian.AppendUint64(data, s.GPA)
		data = binary.LittleEndian.AppendUint64(data, s.MemorySize)
		out = append(out, boot.Event{
			PCR: 1, Type: eventlog.EFIPlatformFirmwareBlob2, Name: "variable store", Input: boot.Variables, Data: data, Content: boot.Bytes(s.Data),
		})
	}
	return out, nil
}
