package qemu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
)

// ConfigurationBase is where the editions of OVMF put the configuration space of
// PCI Express.
func ConfigurationBase(e boot.Edition) uint32 {
	if e == boot.Stable202211 {
		return 0xb000_0000
	}
	return 0xe000_0000
}

// qtest speaks QEMU's test protocol: a line asks, a line answers.
type qtest struct {
	conn io.Writer
	in   *bufio.Reader
}

// Ports of a PC (QEMU, docs/specs/fw_cfg.rst and pc.rst).
const (
	portConfigAddress = 0xcf8
	portConfigData    = 0xcfc
	portSelect        = 0x510
	portData          = 0x511
)

// Items of fw_cfg that are no files.
const (
	itemSignature = 0x00
	itemBootMenu  = 0x0e
	itemDirectory = 0x19
)

// Registers of the chipset that the tables depend on (Intel 82Q35, 3.1; ICH9,
// 13.1): the configuration space of PCI Express, and ACPI's ports.
const (
	pciExpressBase  = 0x80000060 // device 0
	powerBase       = 0x8000f840 // device 31
	powerControl    = 0x8000f844
	powerPort       = 0x600
	powerEnabled    = 0x80
	enabled         = 1
	signatureOfQEMU = "QEMU"
)

// readMachine sets the chipset up and reads what is measured.
func readMachine(conn io.ReadWriter, base uint32) (m Machine, err error) {
	q := &qtest{conn, bufio.NewReader(conn)}
	for _, line := range []string{
		fmt.Sprintf("outl %#x %#x", portConfigAddress, uint32(pciExpressBase)),
		fmt.Sprintf("outl %#x %#x", portConfigData, base|enabled),
		fmt.Sprintf("outl %#x %#x", portConfigAddress, uint32(powerBase)),
		fmt.Sprintf("outl %#x %#x", portConfigData, powerPort|enabled),
		fmt.Sprintf("outl %#x %#x", portConfigAddress, uint32(powerControl)),
		fmt.Sprintf("outb %#x %#x", portConfigData, powerEnabled),
	} {
		if err := q.do(line); err != nil {
			return m, err
		}
	}
	signature, err := q.item(itemSignature, len(signatureOfQEMU))
	if err != nil {
		return m, err
	}
	if string(signature) != signatureOfQEMU {
		return m, fmt.Errorf("the machine has no fw_cfg: it begins with %q", signature)
	}
	directory, err := q.directory()
	if err != nil {
		return m, err
	}
	m.files = map[string][]byte{}
	for _, name := range names() {
		entry, ok := directory[name]
		if name == "BootMenu" { // an item without a file
			entry, ok = file{itemBootMenu, 2}, true
		}
		if !ok || entry.size == 0 { // etc/tpm/log is there without a TPM too
			continue
		}
		if entry.size > maxFile {
			return m, fmt.Errorf("fw_cfg's %s has %d bytes, at most %d", name, entry.size, maxFile)
		}
		if m.files[name], err = q.item(entry.selector, int(entry.size)); err != nil {
			return m, err
		}
	}
	return m, nil
}

// file is an entry of fw_cfg's directory.
type file struct {
	selector uint16
	size     uint32
}

func (q *qtest) directory() (map[string]file, error) {
	const head, entry, maxEntries = 4, 64, 1024
	raw, err := q.item(itemDirectory, head)
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	count := be.Uint32(raw)
	if count > maxEntries {
		return nil, fmt.Errorf("fw_cfg has %d files, at most %d", count, maxEntries)
	}
	if raw, err = q.item(itemDirectory, head+int(count)*entry); err != nil {
		return nil, err
	}
	out := map[string]file{}
	for raw = raw[head:]; len(raw) > 0; raw = raw[entry:] {
		name, _, _ := bytes.Cut(raw[8:entry], []byte{0})
		out[string(name)] = file{be.Uint16(raw[4:]), be.Uint32(raw)}
	}
	return out, nil
}

// item reads the beginning of an item, a byte at a time as the port has them.
func (q *qtest) item(selector uint16, size int) ([]byte, error) {
	if err := q.do(fmt.Sprintf("outw %#x %#x", portSelect, selector)); err != nil {
		return nil, err
	}
	const atOnce = 1024
	line := fmt.Appendf(nil, "inb %#x\n", portData)
	out := make([]byte, 0, size)
	for len(out) < size {
		n := min(atOnce, size-len(out))
		if _, err := q.conn.Write(bytes.Repeat(line, n)); err != nil {
			return nil, err
		}
		for range n {
			text, err := q.answer()
			if err != nil {
				return nil, err
			}
			b, err := strconv.ParseUint(text, 0, 8)
			if err != nil {
				return nil, fmt.Errorf("QEMU's answer %.40q is no byte", text)
			}
			out = append(out, byte(b))
		}
	}
	return out, nil
}

func (q *qtest) do(line string) error {
	if _, err := fmt.Fprintln(q.conn, line); err != nil {
		return err
	}
	_, err := q.answer()
	return err
}

// answer reads the answer to one line, without its OK. Interrupts are reported
// in between.
func (q *qtest) answer() (string, error) {
	for {
		line, err := q.in.ReadSlice('\n')
		if err != nil {
			return "", fmt.Errorf("QEMU stopped answering: %w", err)
		}
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "IRQ ") {
			continue
		}
		rest, ok := strings.CutPrefix(text, "OK")
		if !ok {
			return "", fmt.Errorf("QEMU answers %.80q", text)
		}
		return strings.TrimSpace(rest), nil
	}
}
