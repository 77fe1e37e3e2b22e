package boot

import (
	"encoding/binary"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Ids of the tagged events of Linux's EFI stub.
const (
	taggedInitrd      = 0x8f3b22ec
	taggedLoadOptions = 0x8f3b22ed
)

// StartEvents is what is measured from the first image that is started until
// the kernel leaves the firmware, without the image of a direct boot, which is
// measured earlier.
func (m Machine) StartEvents() ([]Event, error) {
	out := m.authority()
	if m.Direct != nil {
		out = append(out, m.Direct.kernelEvents(m.Edition)...)
	} else {
		if m.PartitionTable != nil {
			out = append(out, Event{PCR: 5, Type: eventlog.EFIGPTEvent, Name: "partition table", Input: Disk, Data: m.PartitionTable, Content: Bytes(m.PartitionTable)})
		}
		stub, err := m.UKI.events(m.SecureBoot)
		if err != nil {
			return nil, err
		}
		out = append(out, stub...)
	}
	return append(out,
		action(5, "Exit Boot Services Invocation"),
		action(5, "Exit Boot Services Returned with Success")), nil
}

// ImageEvent is the image of a direct boot.
func (m Machine) ImageEvent() (Event, bool) {
	if m.Direct == nil {
		return Event{}, false
	}
	return m.Direct.image(), true
}

func (d *Direct) image() Event {
	return Event{
		PCR: 4, Type: eventlog.EFIBootServicesApplication, Name: "kernel", Input: Kernel,
		Data: efi.ImageLoad(uint64(d.KernelSize), efi.KernelPath()), Content: d.Kernel,
	}
}

// kernelEvents is what the kernel's EFI stub measures.
func (d *Direct) kernelEvents(edition Edition) []Event {
	line := edition.commandLine(d.CommandLine, d.Initrd != nil)
	out := []Event{loadOptions(line)}
	if d.Initrd != nil {
		out = append(out, initrd(d.Initrd))
	}
	return out
}

func loadOptions(line string) Event {
	e := Event{PCR: 9, Type: eventlog.EventTag, Name: "command line", Input: CommandLine, Data: tagged(taggedLoadOptions, "LOADED_IMAGE::LoadOptions")}
	if line == "" {
		e.Missing = "whether a kernel measures an empty command line is not known"
		return e
	}
	e.Content = Bytes(efi.UTF16Z(line))
	return e
}

func initrd(c *Content) Event {
	return Event{PCR: 9, Type: eventlog.EventTag, Name: "initrd", Input: Initrd, Data: tagged(taggedInitrd, "Linux initrd"), Content: c}
}

func tagged(id uint32, text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)+1))
	return append(append(b, text...), 0)
}

// InitDataPCR is the register that the digest of the init-data is extended into.
const InitDataPCR = 8

// initData is what the guest extends of its init-data (kbs-protocol 9.4). Only
// the SHA-256 bank is defined, and only for a SHA-256 digest.
func (m Machine) initData() []Event {
	if m.InitData == nil {
		return nil
	}
	e := Event{PCR: InitDataPCR, Type: eventlog.EventTag, Name: "init-data", Input: InitData}
	if len(m.InitData) == eventlog.SHA256.Size() {
		e.Content = Known(len(m.InitData), map[eventlog.Algorithm][]byte{eventlog.SHA256: m.InitData})
	} else {
		e.Missing = fmt.Sprintf("PCR 8 takes an init-data digest of 32 bytes, this one has %d", len(m.InitData))
	}
	return []Event{e}
}
