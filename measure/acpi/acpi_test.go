package acpi_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/acpi"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// table makes a table with a header of the size that all but FACS have.
func table(signature string, size int, body ...byte) []byte {
	b := make([]byte, size, size+len(body))
	copy(b, signature)
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

// madt lists one processor by each kind of entry, and one that is not there.
func madt() []byte {
	return table("APIC", 44,
		0, 8, 0, 0, 1, 0, 0, 0,
		1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0,
		0, 8, 1, 1, 2, 0, 0, 0, // could be plugged in
		9, 16, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
		4, 6, 0xff, 0, 0, 1,
	)
}

func file(tables ...[]byte) []byte {
	var out []byte
	for _, t := range tables {
		out = append(out, t...)
	}
	return append(out, make([]byte, 100)...)
}

func TestProcessors(t *testing.T) {
	tables, err := acpi.Parse(file(table("FACS", 64), table("DSDT", 36, 1, 2, 3), madt()))
	if err != nil || len(tables) != 3 || tables[1].Signature != "DSDT" || len(tables[1].Raw) != 39 {
		t.Fatalf("%v, %v", tables, err)
	}
	if n, err := acpi.Processors(tables); n != 2 || err != nil {
		t.Errorf("%d processors, %v", n, err)
	}
	if n, err := acpi.Processors(tables[:2]); !errors.Is(err, acpi.ErrTables) {
		t.Errorf("%d processors without a list of them, %v", n, err)
	}
}

// The tables of a machine with two processors, as QEMU made them.
func TestTablesOfQEMU(t *testing.T) {
	raw := evidencetest.File(t, "launch", "own", "acpi", "tables-qemu7.2.22-q35-max-2cpu-2G.bin")
	tables, err := acpi.Parse(raw)
	if err != nil || len(tables) != 8 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	if n, err := acpi.Processors(tables); n != 2 || err != nil {
		t.Errorf("%d processors, %v", n, err)
	}
}

func TestRefused(t *testing.T) {
	long := table("DSDT", 36)
	binary.LittleEndian.PutUint32(long[4:], 1<<20)
	cut := madt()
	cut = cut[:len(cut)-3]
	binary.LittleEndian.PutUint32(cut[4:], uint32(len(cut)))
	for name, raw := range map[string][]byte{
		"nothing":             nil,
		"zeros":               make([]byte, 64),
		"cut in a header":     []byte("DSDT"),
		"longer than it is":   long,
		"shorter than a head": {'D', 'S', 'D', 'T', 4, 0, 0, 0},
		"more behind":         append(file(table("DSDT", 36)), 1),
		"too large":           make([]byte, acpi.MaxSize+1),
		"an entry is cut":     cut,
		"an empty entry":      table("APIC", 44, 0, 0),
		"APIC without list":   table("APIC", 40),
	} {
		tables, err := acpi.Parse(raw)
		if err == nil {
			_, err = acpi.Processors(tables)
		}
		if !errors.Is(err, acpi.ErrTables) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is accepted is all of the file but the zeros at its end.
func FuzzParse(f *testing.F) {
	f.Add(file(table("FACS", 64), madt()))
	f.Add([]byte("APIC\x2e\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tables, err := acpi.Parse(raw)
		if err != nil {
			return
		}
		total := 0
		for _, t := range tables {
			total += len(t.Raw)
		}
		for _, b := range raw[total:] {
			if b != 0 {
				t.Fatalf("%d bytes of %d are tables", total, len(raw))
			}
		}
		_, _ = acpi.Processors(tables)
	})
}
