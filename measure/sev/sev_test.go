package sev_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
)

// What each VMM has its own idea of, register by register (measure.md a.5). The
// digests that others publish are tried in package snp; KRUN has none.
func TestVMSA(t *testing.T) {
	type registers struct {
		cs, ss, tr    uint16 // attributes
		rip, csBase   uint64
		rdx, pat, rsi uint64
		rbp, rsp      uint64
		mxcsr         uint32
		fcw           uint16
	}
	const (
		reset = 0x80b004
		pat   = 0x0007040600070406
		cpu   = 0x800f12
	)
	for name, c := range map[string]struct {
		cpu         sev.CPU
		application bool
		want        registers
	}{
		"QEMU":                {sev.CPU{VMM: sev.QEMU}, false, registers{0x9b, 0x93, 0x8b, 0xfff0, 0xffff0000, cpu, pat, 0, 0, 0, 0x1f80, 0x37f}},
		"QEMU on an old host": {sev.CPU{VMM: sev.QEMU, FPU: sev.FPUZero}, false, registers{0x9b, 0x93, 0x8b, 0xfff0, 0xffff0000, cpu, pat, 0, 0, 0, 0, 0}},
		"QEMU, others":        {sev.CPU{VMM: sev.QEMU}, true, registers{0x9b, 0x93, 0x8b, 0xb004, 0x800000, cpu, pat, 0, 0, 0, 0x1f80, 0x37f}},
		"EC2":                 {sev.CPU{VMM: sev.EC2}, false, registers{0x9a, 0x92, 0x83, 0xfff0, 0xffff0000, 0x600, pat, 0, 0, 0, 0, 0}},
		"EC2, others":         {sev.CPU{VMM: sev.EC2}, true, registers{0x9b, 0x92, 0x83, 0xb004, 0x800000, 0x600, pat, 0, 0, 0, 0, 0}},
		"EC2 before":          {sev.CPU{VMM: sev.EC2Legacy}, false, registers{0x9a, 0x92, 0x83, 0xfff0, 0xffff0000, 0, pat, 0, 0, 0, 0, 0}},
		"GCE":                 {sev.CPU{VMM: sev.GCE}, false, registers{0x9b, 0x93, 0x8b, 0xfff0, 0xffff0000, 0x600, 0x70106, 0, 0, 0, 0, 0}},
		"KRUN":                {sev.CPU{VMM: sev.KRUN}, false, registers{0x9a, 0x92, 0x83, 0xfff0, 0xffff0000, 0, pat, 0x7000, 0x8ff0, 0x8ff0, 0, 0}},
		"KRUN, others":        {sev.CPU{VMM: sev.KRUN}, true, registers{0x9a, 0x92, 0x83, 0xb004, 0x800000, 0, pat, 0, 0, 0, 0, 0}},
	} {
		c.cpu.Signature, c.cpu.Features = cpu, 0x21
		page, err := c.cpu.VMSA(c.application, reset)
		if err != nil {
			t.Fatal(name, err)
		}
		le := binary.LittleEndian
		u64 := func(at int) uint64 { return le.Uint64(page[at:]) }
		got := registers{
			le.Uint16(page[0x12:]), le.Uint16(page[0x22:]), le.Uint16(page[0x92:]), u64(0x178), u64(0x18),
			u64(0x310), u64(0x268), u64(0x330), u64(0x328), u64(0x1d8), le.Uint32(page[0x408:]), le.Uint16(page[0x410:]),
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if u64(0x3b0) != 0x21 || u64(0xd0) != 0x1000 || u64(0x148) != 0x40 || u64(0x158) != 0x10 || u64(0x170) != 2 || u64(0x3e8) != 1 {
			t.Errorf("%s: the registers that all have alike are others", name)
		}
	}
	if _, err := (sev.CPU{VMM: "xen"}).VMSA(false, 0); err == nil {
		t.Error("a VMM that nobody knows has a state")
	}
}

func TestParseCPU(t *testing.T) {
	for text, want := range map[string]uint32{
		"EPYC-v4": 0x800f12, "epyc-rome": 0x830f10, "EPYC-Milan": 0xa00f11, "EPYC-Genoa": 0xa10f10, "EPYC-Turin": 0xb00f00, "0xb10f00": 0xb10f00,
	} {
		if got, err := sev.ParseCPU(text); got != want || err != nil {
			t.Errorf("%s is %#x, %v; want %#x", text, got, err, want)
		}
	}
	for _, text := range []string{"", "Xeon", "0x", "0x123456789", "123"} {
		if got, err := sev.ParseCPU(text); err == nil {
			t.Errorf("%q is %#x", text, got)
		}
	}
}

func TestHashBoot(t *testing.T) {
	h, err := sev.HashBoot([]byte("kernel"), nil, "")
	if err != nil || h.CommandLine != sha256.Sum256([]byte{0}) || h.Initrd != sha256.Sum256(nil) || h.Kernel != sha256.Sum256([]byte("kernel")) {
		t.Errorf("%x, %v", h, err)
	}
	table := h.Table()
	if binary.LittleEndian.Uint16(table[16:]) != 168 || !bytes.Equal(table[168:], make([]byte, 8)) || !bytes.Contains(table[:], h.Kernel[:]) {
		t.Errorf("%x", table)
	}
	for _, line := range []string{"a\x00b", strings.Repeat("x", 64<<10+1)} {
		if _, err := sev.HashBoot([]byte("kernel"), nil, line); err == nil {
			t.Errorf("a command line of %d bytes was hashed", len(line))
		}
	}
}

func TestPredictRefuses(t *testing.T) {
	l := ovmftest.Default()
	f, err := ovmf.Parse(ovmftest.Build(l))
	if err != nil {
		t.Fatal(err)
	}
	l.HashTable = [2]uint32{}
	without, err := ovmf.Parse(ovmftest.Build(l))
	if err != nil {
		t.Fatal(err)
	}
	good := sev.Launch{Firmware: f, EncryptedState: true, VCPUs: 2, CPU: sev.CPU{VMM: sev.QEMU}}
	if _, err := sev.Predict(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*sev.Launch){
		"no processor":   func(l *sev.Launch) { l.VCPUs = 0 },
		"too many":       func(l *sev.Launch) { l.VCPUs = sev.MaxVCPUs + 1 },
		"guest features": func(l *sev.Launch) { l.CPU.Features = 1 },
		"unknown VMM":    func(l *sev.Launch) { l.CPU.VMM = "xen" },
	} {
		bad := good
		change(&bad)
		if _, err := sev.Predict(bad); err == nil {
			t.Errorf("%s: predicted", name)
		}
	}
	if _, err := sev.Predict(sev.Launch{Firmware: without, Hashes: &sev.Hashes{}}); !errors.Is(err, sev.ErrNoKernelHashes) {
		t.Errorf("a firmware that measures no kernel: %v", err)
	}
}
