package boot_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Where QEMU puts an initrd of 6868267 bytes, as a program of others finds it
// for machines of 2 GiB and more (measure.md b.6), and what else it writes.
func TestPatchKernel(t *testing.T) {
	kernel := boottest.Kernel([]byte("code"))
	const initrd = 6868267
	le := binary.LittleEndian
	for memory, want := range map[uint64]uint32{
		1 << 30: 0x3f94b000, 2 << 30: 0x7f94b000, 4 << 30: 0x7f94b000,
		0xaf000000: 0xae94b000, // below the hole, all of it counts
	} {
		got, err := boot.PatchKernel(kernel, initrd, memory)
		if err != nil {
			t.Fatal(err)
		}
		if le.Uint32(got[0x218:]) != want || le.Uint32(got[0x21c:]) != initrd || got[0x210] != 0xb0 || got[0x211] != 0x80 ||
			le.Uint32(got[0x224:]) != 0xfe00 || le.Uint32(got[0x228:]) != 0x20000 {
			t.Errorf("%d MiB: want the initrd at %#x; %x", memory>>20, want, got[0x210:0x230])
		}
		if !bytes.Equal(got[boot.SetupEnd:], kernel[boot.SetupEnd:]) || !bytes.Equal(got[:0x210], kernel[:0x210]) {
			t.Error("something else was changed")
		}
	}
	alone, err := boot.PatchKernel(kernel, 0, 1<<30)
	if err != nil || le.Uint64(alone[0x218:]) != 0 {
		t.Errorf("without an initrd: %x, %v", alone[0x218:0x220], err)
	}
	for name, c := range map[string]struct {
		kernel []byte
		size   int
		memory uint64
	}{
		"no kernel": {nil, 0, 1 << 30}, "no header": {make([]byte, 4096), 0, 1 << 30}, "no memory": {kernel, 0, 0},
		"a large initrd": {kernel, 1 << 31, 4 << 30}, "little memory": {kernel, 10, 1 << 16},
	} {
		if _, err := boot.PatchKernel(c.kernel, c.size, c.memory); err == nil {
			t.Errorf("%s: patched", name)
		}
	}
}

func TestParseUnified(t *testing.T) {
	kernel := boottest.Kernel([]byte("code"))
	u, err := boot.ParseUnified(boottest.Unified(kernel, []byte("initrd"), "quiet"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if u.Stub != 252 || string(u.Line) != "quiet" || u.InnerLen != len(kernel) {
		t.Errorf("%+v", u)
	}
	var names []string
	for _, e := range u.MeasureSections() {
		names = append(names, e.Name)
	}
	want := "name of section .linux,section .linux,name of section .osrel,section .osrel,name of section .cmdline,section .cmdline,name of section .initrd,section .initrd"
	if got := strings.Join(names, ","); got != want {
		t.Errorf("measured: %s", got)
	}
	sum, err := u.Sections[".initrd"].Sum(eventlog.SHA256)
	if err != nil || !bytes.Equal(sum, eventlog.SHA256.Sum([]byte("initrd"))) {
		t.Errorf("with the padding of the file: %x, %v", sum, err)
	}
	for name, raw := range map[string][]byte{
		"a kernel":        kernel,
		"without version": boottest.Image(boottest.Section{Name: ".linux", Data: kernel}),
		"without kernel":  boottest.Image(boottest.Section{Name: ".sdmagic", Data: []byte("systemd-stub 252")}),
		"an old stub":     boottest.Image(boottest.Section{Name: ".sdmagic", Data: []byte("systemd-stub 249")}, boottest.Section{Name: ".linux", Data: kernel}),
		"a broken kernel": boottest.Image(boottest.Section{Name: ".sdmagic", Data: []byte("systemd-stub 252")}, boottest.Section{Name: ".linux", Data: []byte("MZ")}),
	} {
		if _, err := boot.ParseUnified(raw, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Images of any kind are read without harm, and what is read can be hashed.
func FuzzParseUnified(f *testing.F) {
	kernel := boottest.Kernel([]byte("code"))
	f.Add(boottest.Unified(kernel, []byte("initrd"), "quiet"), 0)
	f.Add(kernel, 257)
	f.Fuzz(func(t *testing.T, raw []byte, stub int) {
		u, err := boot.ParseUnified(raw, stub)
		if err != nil {
			return
		}
		m := boot.Machine{Edition: boot.Stable202502, UKI: u}
		events, err := m.Events()
		if err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		if _, err := boot.Replay(events, eventlog.SHA256, func(pcr int) int { return pcr }); err != nil {
			t.Fatal(err)
		}
	})
}

// A patched kernel differs from the file in the setup header alone.
func FuzzPatchKernel(f *testing.F) {
	f.Add(boottest.Kernel([]byte("code")), 1000, uint64(1<<30))
	f.Fuzz(func(t *testing.T, kernel []byte, initrd int, memory uint64) {
		before := slices.Clone(kernel)
		got, err := boot.PatchKernel(kernel, initrd, memory)
		if !bytes.Equal(before, kernel) {
			t.Fatal("the file was changed")
		}
		if err == nil && (len(got) != len(kernel) || !bytes.Equal(got[boot.SetupEnd:], kernel[boot.SetupEnd:])) {
			t.Fatal("more than the header was changed")
		}
	})
}
