package tdx

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
)

// hobTable is the vendor GUID under which OVMF logs the TD HOB.
var hobTable = efi.NewGUID(0x93bb96af, 0xb9f2, 0x4eb8, 0x9462e0ba74564236)

// Where QEMU splits memory around the hole below 4 GiB (q35).
const (
	lowLimit  = 0xb000_0000 // memory below this is not split
	lowMemory = 0x8000_0000
	highStart = 1 << 32
)

// maxMemory is the largest memory that is predicted for: 52 bits.
const maxMemory = 1 << 52

// hobEvent is the first event of a TD: the list by which the VMM tells the
// firmware its memory.
func (td TD) hobEvent() boot.Event {
	e := boot.Event{PCR: 1, Type: eventlog.EFIHandoffTables2, Name: "TD HOB", Input: boot.Memory}
	hob, gpa, err := HOB(td.Firmware, td.Memory)
	if err != nil {
		e.Missing = err.Error()
		return e
	}
	e.Data = append([]byte{9}, "TdxTable\x00"...)
	e.Data = binary.LittleEndian.AppendUint64(e.Data, 1)
	e.Data = append(e.Data, hobTable[:]...)
	e.Data = binary.LittleEndian.AppendUint64(e.Data, gpa)
	e.Content = boot.Bytes(hob)
	return e
}

// HOB returns the list that QEMU writes for a TD, as it is measured: without
// the entry that ends it (measure.md b.4). It depends on the firmware's layout
// and on the size of memory in bytes. gpa is where it lies.
func HOB(f *ovmf.Firmware, memory uint64) (hob []byte, gpa uint64, err error) {
	l, err := LayoutOf(f)
	if err != nil {
		return nil, 0, err
	}
	hob, err = l.List(memory)
	return hob, l.HOB, err
}

// Layout is the memory that a firmware uses before it knows of more: what a TD
// HOB depends on beside the size of memory.
type Layout struct {
	HOB  uint64 `json:"hob"` // where the list goes
	Used []Span `json:"used"`
}

// Span is a range of guest memory in bytes.
type Span struct {
	Start  uint64 `json:"start"`
	Length uint64 `json:"length"`
}

// LayoutOf reads the layout of a firmware.
func LayoutOf(f *ovmf.Firmware) (Layout, error) {
	sections, err := f.TDXSections()
	if err != nil {
		return Layout{}, err
	}
	var l Layout
	found := false
	for _, s := range sections {
		switch s.Type {
		case ovmf.TDXHOB:
			l.HOB, found = s.GPA, true
			l.Used = append(l.Used, Span{s.GPA, s.MemorySize})
		case ovmf.TDXTempMem:
			l.Used = append(l.Used, Span{s.GPA, s.MemorySize})
		default:
		}
	}
	if !found {
		return l, errors.New("the firmware has no place for a TD HOB")
	}
	slices.SortFunc(l.Used, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	return l, nil
}

// Resource types of the list (PI specification, volume 3, 5.5).
const (
	systemMemory     = 0
	unacceptedMemory = 7
)

// List returns the list for a size of memory in bytes, without its end.
func (l Layout) List(memory uint64) ([]byte, error) {
	if memory == 0 || memory%pageSize != 0 || memory > maxMemory {
		return nil, fmt.Errorf("the size of memory, %d bytes, is not given or not possible", memory)
	}
	le := binary.LittleEndian
	const head = 56
	list := make([]byte, head)
	le.PutUint16(list, 1) // the phase handoff table
	le.PutUint16(list[2:], head)
	le.PutUint32(list[8:], 9) // version
	add := func(kind uint32, start, end uint64) {
		if start == end {
			return
		}
		list = le.AppendUint16(list, 3) // a resource
		list = le.AppendUint16(list, 48)
		list = append(list, make([]byte, 4+16)...) // reserved, and no owner
		list = le.AppendUint32(list, kind)
		list = le.AppendUint32(list, 7) // present, initialised, tested
		list = le.AppendUint64(list, start)
		list = le.AppendUint64(list, end-start)
	}
	low := memory
	if memory >= lowLimit {
		low = lowMemory
	}
	at := uint64(0)
	for _, s := range l.Used {
		if s.Start < at || s.Start > low || s.Length > low-s.Start {
			return nil, errors.New("the firmware's memory overlaps or lies beyond that of the machine")
		}
		add(unacceptedMemory, at, s.Start)
		add(systemMemory, s.Start, s.Start+s.Length)
		at = s.Start + s.Length
	}
	add(unacceptedMemory, at, low)
	add(unacceptedMemory, highStart, highStart+memory-low)
	const end = 8 // the entry that ends the list
	le.PutUint64(list[48:], l.HOB+uint64(len(list))+end)
	return list, nil
}
