package ovmf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
)

func TestParse(t *testing.T) {
	l := ovmftest.Default()
	raw := ovmftest.Build(l)
	f, err := ovmf.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if f.GPA() != 1<<32-uint64(len(raw)) {
		t.Errorf("at %#x", f.GPA())
	}
	if reset, err := f.ResetAddress(); reset != l.Reset || err != nil {
		t.Errorf("reset at %#x, %v", reset, err)
	}
	if a, ok := f.HashTable(); !ok || a.GPA != l.HashTable[0] || a.Size != l.HashTable[1] {
		t.Errorf("hash table at %+v, %v", a, ok)
	}
	sections, err := f.SEVSections()
	if err != nil || len(sections) != len(l.SEV) {
		t.Fatalf("%v, %v", sections, err)
	}
	for i, s := range sections {
		if s.GPA != l.SEV[i].GPA || s.Size != l.SEV[i].Size || uint32(s.Type) != l.SEV[i].Type {
			t.Errorf("section %d is %+v, want %+v", i, s, l.SEV[i])
		}
	}
	td, err := f.TDXSections()
	if err != nil || len(td) != len(l.TD) || !td[0].Extend || td[1].Extend || len(td[1].Data) != int(l.TD[1].Size) {
		t.Errorf("%d sections of a TD, %v", len(td), err)
	}
	// The end of the file says the same about SEV.
	tail, err := ovmf.Parse(f.Tail())
	if err != nil || len(f.Tail()) >= len(raw) {
		t.Fatalf("a tail of %d bytes: %v", len(f.Tail()), err)
	}
	if again, err := tail.SEVSections(); err != nil || len(again) != len(sections) || again[0] != sections[0] {
		t.Errorf("%v, %v", again, err)
	}
}

func TestRefused(t *testing.T) {
	le := binary.LittleEndian
	whole := func() []byte { return ovmftest.Build(ovmftest.Default()) }
	footer := func(b []byte) []byte { return b[len(b)-50:] }
	metadata := func(b []byte, signature string) []byte {
		before, _, _ := bytes.Cut(b, []byte(signature))
		return b[len(before):]
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"empty":           {func([]byte) []byte { return nil }, "must be a multiple"},
		"odd size":        {func(b []byte) []byte { return b[1:] }, "must be a multiple"},
		"no table":        {func(b []byte) []byte { return make([]byte, len(b)) }, "is this OVMF?"},
		"a small table":   {func(b []byte) []byte { le.PutUint16(footer(b), 17); return b }, "has 17 bytes"},
		"a large table":   {func(b []byte) []byte { le.PutUint16(footer(b), 0xffff); return b }, "table of GUIDs"},
		"a large entry":   {func(b []byte) []byte { le.PutUint16(b[len(b)-50-18:], 0xfff0); return b }, "an entry"},
		"too many ranges": {func(b []byte) []byte { le.PutUint32(metadata(b, "ASEV")[12:], 1<<30); return b }, "does not fit"},
		"another version": {func(b []byte) []byte { le.PutUint32(metadata(b, "ASEV")[8:], 2); return b }, "version 2"},
		"half a page":     {func(b []byte) []byte { le.PutUint32(metadata(b, "ASEV")[16:], 0x800800); return b }, "not made of pages"},
		"unknown range":   {func(b []byte) []byte { le.PutUint32(metadata(b, "ASEV")[24:], 9); return b }, "unknown type 9"},
		"a huge range":    {func(b []byte) []byte { le.PutUint32(metadata(b, "ASEV")[20:], 0xfffff000); return b }, "more than"},
		"beyond the file": {func(b []byte) []byte { le.PutUint32(metadata(b, "TDVF")[16:], 0x7fffffff); return b }, "of a file of"},
		"TD half a page":  {func(b []byte) []byte { le.PutUint64(metadata(b, "TDVF")[24:], 1); return b }, "not made of pages"},
		"TD endless":      {func(b []byte) []byte { le.PutUint64(metadata(b, "TDVF")[32:], 1<<40); return b }, "not made of pages"},
		"TD unknown":      {func(b []byte) []byte { le.PutUint32(metadata(b, "TDVF")[40:], 77); return b }, "unknown type 77"},
		"TD attributes":   {func(b []byte) []byte { le.PutUint32(metadata(b, "TDVF")[44:], 0x100); return b }, "unknown attributes"},
	} {
		f, err := ovmf.Parse(c.change(whole()))
		if err == nil {
			_, err = f.SEVSections()
		}
		if err == nil {
			_, err = f.TDXSections()
		}
		if !errors.Is(err, ovmf.ErrFirmware) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
	twice := ovmftest.Default()
	twice.SEV, twice.TD = nil, nil
	f, err := ovmf.Parse(ovmftest.Build(twice))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.SEVSections(); err == nil {
		t.Error("SEV metadata where there is none")
	}
	if _, err := f.TDXSections(); err == nil {
		t.Error("TDX metadata where there is none")
	}
}

// Whatever a file says, its sections lie within it and are bounded.
func FuzzParse(f *testing.F) {
	l := ovmftest.Default()
	l.Size = ovmf.MinSize
	l.TD, l.Variables = []ovmftest.TDSection{{Offset: 0, Size: 0x800, GPA: 0xfffff000, Memory: 0x1000, Attr: 1}}, nil
	f.Add(ovmftest.Build(l))
	f.Fuzz(func(t *testing.T, raw []byte) {
		firmware, err := ovmf.Parse(raw)
		if err != nil {
			return
		}
		if sections, err := firmware.TDXSections(); err == nil {
			for _, s := range sections {
				if uint64(len(s.Data)) > s.MemorySize {
					t.Fatalf("%d bytes in %d", len(s.Data), s.MemorySize)
				}
			}
		}
		sections, err := firmware.SEVSections()
		if err != nil {
			return
		}
		tail, err := ovmf.Parse(firmware.Tail())
		if err != nil {
			t.Fatalf("the tail: %v", err)
		}
		if again, err := tail.SEVSections(); err != nil || len(again) != len(sections) {
			t.Fatalf("the tail has %d sections of %d, %v", len(again), len(sections), err)
		}
		_, _ = firmware.ResetAddress()
		_, _ = firmware.SVSMEntry()
		firmware.LaunchSecret()
	})
}
