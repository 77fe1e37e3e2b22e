// Package acpi reads the ACPI tables that a VMM makes for a guest, as far as a
// prediction needs them: which tables there are, and for how many processors.
// What a firmware measures is the bytes; they are read only to find out whether
// they belong to the machine that is predicted for.
package acpi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrTables says that something is no ACPI tables.
var ErrTables = errors.New("malformed ACPI tables")

// MaxSize is the largest file of tables that is read, in bytes. QEMU makes
// 128 KiB for most machines, and 2 MiB for the largest.
const MaxSize = 8 << 20

// Table is one of the tables.
type Table struct {
	Signature string // four letters, for example APIC
	Raw       []byte // with its header; must not be changed
}

// Parse takes apart what fw_cfg has as etc/acpi/tables: tables one after the
// other, and zeros. Pointers and checksums in them are not filled in yet, and
// are not looked at (ACPI 6.5, 5.2.6).
func Parse(raw []byte) ([]Table, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTables, len(raw), MaxSize)
	}
	const head = 8
	var out []Table
	for rest := raw; len(rest) > 0; {
		if rest[0] == 0 {
			if len(bytes.TrimLeft(rest, "\x00")) > 0 {
				return nil, fmt.Errorf("%w: something lies behind the last table", ErrTables)
			}
			break
		}
		if len(rest) < head {
			return nil, fmt.Errorf("%w: %d bytes behind the last table", ErrTables, len(rest))
		}
		size := binary.LittleEndian.Uint32(rest[4:])
		if size < head || uint64(size) > uint64(len(rest)) {
			return nil, fmt.Errorf("%w: table %q has %d bytes of %d", ErrTables, rest[:4], size, len(rest))
		}
		out = append(out, Table{string(rest[:4]), rest[:size:size]})
		rest = rest[size:]
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrTables)
	}
	return out, nil
}

// Kinds of entries of the table APIC that are processors (ACPI 6.5, 5.2.12).
const (
	localAPIC   = 0
	localX2APIC = 9
)

// Processors counts the processors that a machine starts with, by the table
// APIC. Those that could be plugged in later do not count.
func Processors(tables []Table) (int, error) {
	for _, t := range tables {
		if t.Signature == "APIC" {
			return processors(t.Raw)
		}
	}
	return 0, fmt.Errorf("%w: no table APIC, which lists the processors", ErrTables)
}

func processors(table []byte) (int, error) {
	const head, enabled = 44, 1
	if len(table) < head {
		return 0, fmt.Errorf("%w: table APIC has %d bytes", ErrTables, len(table))
	}
	count := 0
	for rest := table[head:]; len(rest) > 0; {
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return 0, fmt.Errorf("%w: an entry of table APIC does not fit", ErrTables)
		}
		entry := rest[:rest[1]]
		flags := -1
		switch {
		case entry[0] == localAPIC && len(entry) == 8:
			flags = 4
		case entry[0] == localX2APIC && len(entry) == 16:
			flags = 8
		}
		if flags >= 0 && entry[flags]&enabled != 0 {
			count++
		}
		rest = rest[len(entry):]
	}
	return count, nil
}
