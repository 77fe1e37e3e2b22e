package predict

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict/predicttest"
	"github.com/vouchsafe-cc/vouchsafe/measure/qemu"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// machineOf is what QEMU would say of a machine with so many processors.
func machineOf(t testing.TB, processors int, tpm bool) *qemu.Machine {
	t.Helper()
	dir := t.TempDir()
	if err := predicttest.WriteMachine(dir, processors, tpm); err != nil {
		t.Fatal(err)
	}
	m, err := qemu.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func document(t testing.TB, text string) *initdata.Document {
	t.Helper()
	doc, err := initdata.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"a\" = \"" + text + "\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// firmware is an OVMF whose variable store says which it is.
func firmware(name string) []byte {
	l := ovmftest.Default()
	l.Variables = []byte(name)
	return ovmftest.Build(l)
}

// inputs are those of a guest that all tests start from.
func inputs(t testing.TB) Inputs {
	t.Helper()
	return Inputs{
		Firmware: firmware("one"), Edition: boot.Stable202502,
		Kernel: boottest.Kernel([]byte("kernel")), Initrd: bytes.Repeat([]byte("i"), 10_000), CommandLine: "console=ttyS0 quiet",
		VCPUs: []int{2}, Memory: []uint64{1 << 30}, Headers: []Header{Plain},
		Machine: machineOf(t, 2, true), InitData: document(t, "x"), IMA: boot.IMA{Template: boot.IMANG, Hash: eventlog.SHA256},
	}
}

func predicted(t testing.TB, in Inputs) *Document {
	t.Helper()
	d, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// bootLog is the log of a guest that was started with the inputs: that of a
// TPM, or of a TD with header h.
func bootLog(t testing.TB, in Inputs, p Platform) []byte {
	t.Helper()
	f, err := ovmf.Parse(in.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	kernel := boottest.Kernel([]byte("kernel"))
	if in.Kernel != nil {
		kernel = in.Kernel
	}
	v := variant{header: Patched, memory: in.Memory[0]}
	if p == TDX {
		v.header = in.Headers[0]
	}
	in.Kernel = kernel
	m, err := in.prepare()
	if err != nil {
		t.Fatal(err)
	}
	machine, err := m.machine(v, p == TPM, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p == TDX {
		events, err := tdx.TD{Firmware: f, Memory: in.Memory[0], Machine: machine, Runtime: in.Runtime}.Events()
		if err != nil {
			t.Fatal(err)
		}
		return tdx.CCEL(events).Marshal()
	}
	machine.Version = &boot.Measured{Content: boot.Bytes([]byte("version"))}
	machine.Volumes = []boot.Measured{{Data: make([]byte, 16), Content: boot.Bytes(in.Firmware)}}
	machine.InitData = in.InitData.Digest()
	events, err := machine.Events()
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventlog.New(eventlog.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	boot.Log(l, events, func(pcr int) int { return pcr })
	return l.Marshal()
}

func pe(t testing.TB, raw []byte) *efi.PE {
	t.Helper()
	p, err := efi.ParsePE(raw)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
