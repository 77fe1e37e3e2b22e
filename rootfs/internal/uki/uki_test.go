package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
)

func stubImage() []byte {
	raw := boottest.Image(boottest.Section{Name: ".text", Data: []byte("stub")}, boottest.Section{Name: ".sdmagic", Data: []byte("magic")})
	binary.LittleEndian.PutUint32(raw[binary.LittleEndian.Uint32(raw[0x3c:])+24+36:], 512)
	return append(raw, "symbols"...)
}

// Another reader of PE finds the sections, one behind the other in memory.
func TestMake(t *testing.T) {
	add := []Section{{".cmdline", []byte("quiet")}, {".initrd", bytes.Repeat([]byte("i"), 5000)}, {".linux", []byte("kernel")}}
	raw, err := Make(stubImage(), add)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var memory uint32
	for _, s := range f.Sections[2:] { // those of the stub have no place
		if s.VirtualAddress < memory {
			t.Errorf("%s lies at %#x, within what is before it", s.Name, s.VirtualAddress)
		}
		memory = s.VirtualAddress + s.VirtualSize
	}
	for _, a := range add {
		got, err := f.Section(a.Name).Data()
		if err != nil || !bytes.Equal(got[:f.Section(a.Name).VirtualSize], a.Content) {
			t.Errorf("%s: %v", a.Name, err)
		}
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < memory {
		t.Errorf("the image has %d bytes in memory, and its sections end at %d", size, memory)
	}
	if bytes.Contains(raw, []byte("symbols")) {
		t.Error("what lay behind the sections of the stub is still there")
	}
}

func TestRefused(t *testing.T) {
	good := stubImage()
	many := make([]Section, 40)
	for i := range many {
		many[i] = Section{".s", []byte("x")}
	}
	for name, c := range map[string]struct {
		stub []byte
		add  []Section
	}{
		"empty": {nil, nil}, "no PE image": {bytes.Repeat([]byte("MZ"), 100), nil}, "cut": {good[:0x400], nil},
		"too many": {good, many}, "a long name": {good, []Section{{".toolongname", []byte("x")}}}, "an empty one": {good, []Section{{".cmdline", nil}}},
	} {
		if _, err := Make(c.stub, c.add); !errors.Is(err, ErrStub) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMake(f *testing.F) {
	f.Add(stubImage())
	f.Fuzz(func(t *testing.T, stub []byte) {
		raw, err := Make(stub, []Section{{".linux", []byte("kernel")}})
		if err == nil && len(raw) < len("kernel") {
			t.Error("accepted, and is nothing")
		}
	})
}
