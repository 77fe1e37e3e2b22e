package qemu

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// The test is its own QEMU: started with -qtest it answers as one.
func TestMain(m *testing.M) {
	i := slices.Index(os.Args, "-qtest")
	if i < 0 {
		os.Exit(m.Run())
	}
	if slices.Contains(os.Args, "nonsense") {
		fmt.Fprintln(os.Stderr, "qemu: nonsense is not known")
		os.Exit(1)
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(os.Args[i+1], "unix:"))
	if err != nil {
		os.Exit(2)
	}
	files := machine().files
	files[tpmLog], files["etc/boot-menu-wait"] = nil, nil // files that are empty
	_ = fake(conn, files, slices.Contains(os.Args, "-S"))
	os.Exit(0)
}

// tables of a machine with one processor.
func madt() []byte {
	b := make([]byte, 128)
	copy(b, "APIC")
	binary.LittleEndian.PutUint32(b[4:], 52)
	copy(b[44:], []byte{0, 8, 0, 0, 1, 0, 0, 0})
	return b
}

func machine() Machine {
	return Machine{map[string][]byte{
		loader: bytes.Repeat([]byte("L"), 3000), rsdp: []byte("RSD PTR "), tables: madt(), "BootMenu": {0, 0}, "bootorder": []byte("/rom@x\x00"),
	}}
}

// fake answers as QEMU's test protocol does, with interrupts in between.
func fake(conn io.ReadWriteCloser, files map[string][]byte, stopped bool) error {
	defer func() { _ = conn.Close() }()
	be := binary.BigEndian
	items := map[uint64][]byte{itemSignature: []byte("QEMU"), itemBootMenu: files["BootMenu"]}
	dir := be.AppendUint32(nil, uint32(len(files)-1))
	for i, name := range slices.Sorted(maps.Keys(files)) {
		if name == "BootMenu" {
			continue
		}
		selector := uint16(0x20 + i)
		items[uint64(selector)] = files[name]
		dir = be.AppendUint32(dir, uint32(len(files[name])))
		dir = be.AppendUint16(dir, selector)
		dir = append(append(dir, 0, 0), append([]byte(name), make([]byte, 56-len(name))...)...)
	}
	items[itemDirectory] = dir
	var rest []byte
	out := bufio.NewWriter(conn)
	set := map[uint64]uint64{}
	var address uint64
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		var verb string
		var port, value uint64
		_, _ = fmt.Sscanf(line, "%s %v %v", &verb, &port, &value)
		answer := "OK"
		switch {
		case verb == "outl" && port == portConfigAddress:
			address = value
			answer = "IRQ raise 4\nOK"
		case port == portConfigData:
			set[address] = value
		case verb == "outw" && port == portSelect:
			rest = items[value]
			if set[pciExpressBase] != 0xe000_0001 || set[powerBase] != 0x601 || set[powerControl] != 0x80 || !stopped {
				rest = []byte("not set up")
			}
		case verb == "inb" && port == portData:
			b := byte(0)
			if len(rest) > 0 {
				b, rest = rest[0], rest[1:]
			}
			answer = fmt.Sprintf("OK %#04x", b)
		default:
			answer = "FAIL Unknown command"
		}
		if _, err := out.WriteString(answer + "\n"); err != nil {
			return err
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

func TestAsk(t *testing.T) {
	q := Question{Program: os.Args[0], Arguments: []string{"-m", "2G"}, ConfigurationBase: ConfigurationBase(boot.Stable202502)}
	m, err := Ask(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	want := machine()
	if !maps.EqualFunc(m.files, want.files, bytes.Equal) {
		t.Errorf("%q", m.files)
	}
	if n, err := m.Processors(); n != 1 || err != nil {
		t.Errorf("%d processors, %v", n, err)
	}
	if m.HasTPM() || len(m.ACPI()) != 3 || len(m.Configuration()) != 2 || !bytes.HasPrefix(m.Configuration()[1].Data, []byte("QEMU FW CFG\x00bootorder\x00")) {
		t.Errorf("%v, %v", m.ACPI(), m.Configuration())
	}

	q.Arguments = []string{"-device", "nonsense"}
	if _, err := Ask(t.Context(), q); err == nil || !strings.Contains(err.Error(), "nonsense is not known") {
		t.Errorf("QEMU refused: %v", err)
	}
	q.Program = "/nonexistent"
	if _, err := Ask(t.Context(), q); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no QEMU: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Program = os.Args[0]
	if _, err := Ask(ctx, q); err == nil {
		t.Error("a question that nobody waits for was answered")
	}
}

// What QEMU might say instead is refused.
func TestAnswersThatAreNone(t *testing.T) {
	for name, change := range map[string]func(map[string][]byte){
		"no tables":         func(f map[string][]byte) { delete(f, tables) },
		"no loader":         func(f map[string][]byte) { delete(f, loader) },
		"no processor list": func(f map[string][]byte) { f[tables] = []byte("DSDT\x08\x00\x00\x00") },
	} {
		m := machine()
		change(m.files)
		if err := m.check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, answers := range map[string]string{
		"silence":    "",
		"failure":    "FAIL no such port\n",
		"no byte":    strings.Repeat("OK\n", 7) + strings.Repeat("OK 0x1ff\n", 9),
		"no fw_cfg":  strings.Repeat("OK\n", 7) + strings.Repeat("OK 0xff\n", 9),
		"many files": strings.Repeat("OK\n", 7) + "OK 0x51\nOK 0x45\nOK 0x4d\nOK 0x55\nOK\n" + strings.Repeat("OK 0xff\n", 4),
		"long line":  strings.Repeat("O", 1<<20),
	} {
		if m, err := readMachine(struct {
			io.Reader
			io.Writer
		}{strings.NewReader(answers), io.Discard}, 0); err == nil {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestWrittenAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "machine")
	if err := machine().Write(dir); err != nil {
		t.Fatal(err)
	}
	m, err := Read(dir)
	if err != nil || !maps.EqualFunc(m.files, machine().files, bytes.Equal) {
		t.Errorf("%q, %v", m.files, err)
	}
	if err := machine().Write(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over another: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, rsdp)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), rsdp) {
		t.Errorf("without a file: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// QEMU 7.2 of Debian 12 makes the very tables that guests of the same shape saw
// in their memory and that their firmware logged.
func TestTablesOfRealMachines(t *testing.T) {
	program := os.Getenv("VOUCHSAFE_QEMU_7_2")
	if program == "" {
		t.Skip("VOUCHSAFE_QEMU_7_2 names no qemu-system-x86_64 of Debian 12")
	}
	ask := func(e boot.Edition, memory, processors string, more ...string) Machine {
		m, err := Ask(t.Context(), Question{
			Program: program, ConfigurationBase: ConfigurationBase(e),
			Arguments: append([]string{"-machine", "q35", "-cpu", "max", "-m", memory, "-smp", processors, "-serial", "file:/dev/null", "-no-reboot", "-nodefaults"}, more...),
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	var want struct{ SHA256 string }
	if err := json.Unmarshal(evidencetest.File(t, "launch", "own", "acpi", "expected.json"), &want); err != nil {
		t.Fatal(err)
	}
	without := ask(boot.Stable202211, "2G", "2")
	if without.HasTPM() || len(without.ACPI()) != 3 {
		t.Errorf("%d parts of a machine without a TPM", len(without.ACPI()))
	}
	if got := sha256.Sum256(without.files[tables]); hex.EncodeToString(got[:]) != want.SHA256 {
		t.Errorf("%x, want %s", got, want.SHA256)
	}
	for _, c := range []struct {
		edition                 boot.Edition
		log, memory, processors string
	}{
		{boot.Stable202502, "log-d2502.bin", "1G", "1"},
		{boot.Stable202502, "log-k612t.bin", "2G", "2"},
		{boot.Stable202608, "log-m4G2.bin", "4G", "2"},
	} {
		l, err := eventlog.Parse(evidencetest.File(t, "launch", "own", "tpm", c.log))
		if err != nil {
			t.Fatal(err)
		}
		var logged boot.Machine
		logged.Observe(l)
		socket := startTPM(t)
		m := ask(c.edition, c.memory, c.processors, "-chardev", "socket,id=c,path="+socket, "-tpmdev", "emulator,id=t,chardev=c", "-device", "tpm-crb,tpmdev=t")
		if len(m.ACPI()) != 4 || len(logged.ACPI) != 4 {
			t.Fatalf("%s: %d parts, the log has %d", c.log, len(m.ACPI()), len(logged.ACPI))
		}
		for i, part := range m.ACPI() {
			got, err := part.Content.Sum(eventlog.SHA256)
			want, err2 := logged.ACPI[i].Content.Sum(eventlog.SHA256)
			if err != nil || err2 != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, part %d: %x, want %x (%v, %v)", c.log, i, got, want, err, err2)
			}
		}
	}
}

// startTPM starts a TPM that ends with QEMU, and returns its socket.
func startTPM(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed: apt-get install swtpm")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "tpm")
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket, "--terminate", "--daemon")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return socket
}
