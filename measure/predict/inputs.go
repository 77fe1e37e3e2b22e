// Package predict says what a guest will measure to before it ever boots, on
// every platform at once, and what differs when it did not.
//
// A [Document] holds the values beside the inputs that lead to them: every value
// says which inputs it depends on and for which shape of the machine it holds.
// What cannot be predicted stands in it with the reason; nothing is guessed. A
// document is compared with what a guest measured by [Diff].
//
// The algorithms are elsewhere: packages sev, snp, tdx and boot.
package predict

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf"
	"github.com/vouchsafe-cc/vouchsafe/measure/qemu"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
)

// Platform names what a value is measured by: a platform of package measure, or
// one of the generations before SEV-SNP, whose evidence nothing here verifies.
type Platform string

// The platforms that can be predicted.
const (
	SEV   Platform = "sev"
	SEVES Platform = "sev-es"
	SNP   Platform = "snp"
	TDX   Platform = "tdx"
	TPM   Platform = "tpm"
)

// Platforms lists them.
func Platforms() []Platform { return []Platform{SEV, SEVES, SNP, TDX, TPM} }

// Inputs is what a virtual machine is made of.
type Inputs struct {
	Platforms []Platform // none means all

	Firmware []byte
	Edition  boot.Edition // of the firmware; TDX and TPM need it

	// A kernel that the VMM loads, or a unified kernel image on a disk, or
	// neither: SEV can start a firmware alone.
	Kernel, Initrd []byte
	CommandLine    string
	UKI            []byte
	Stub           int      // version of systemd-stub, 0 to read it from the image
	Phases         []string // of systemd, for PCR 11
	Disk           []byte   // the beginning of the disk, for its partition table
	// SecureBoot is the variables of a machine that enforces it; nil is a machine
	// without keys, unless the image is signed: then it has some, and they are not
	// known.
	SecureBoot *boot.SecureBoot

	// The shapes. Every combination is predicted for where it matters.
	VCPUs    []int
	CPUs     []string // models or signatures: see [sev.ParseCPU]
	VMMs     []sev.VMM
	Features []uint64 // SEV_FEATURES
	FPUs     []sev.FPU
	Memory   []uint64 // bytes
	Headers  []Header // that a TD's firmware may find

	// Machine is what QEMU says of a machine of one shape. A machine with a TPM
	// has other tables than one without.
	Machine *qemu.Machine
	// Logs of boots of the same machine, for what files do not tell: that of a
	// TPM and that of a TD.
	TPMLog, CCLog *eventlog.Log
	IMA           boot.IMA

	InitData *initdata.Document
	Runtime  []eventlog.RuntimeEvent
}

// Header is what QEMU does to the setup header of a kernel before the firmware
// of a TD sees it (measure.md b.6). A machine with a TPM and without a TEE
// always gets it patched.
type Header string

// The two.
const (
	Plain   Header = "plain"   // QEMU 10.2 and later
	Patched Header = "patched" // before
)

// material is the inputs, parsed and ready to be hashed once.
type material struct {
	Inputs
	firmware *ovmf.Firmware
	kernel   *boot.Content // the file
	initrd   *boot.Content // the file, or nil
	plain    *boot.Content // the kernel as a PE image
	patched  map[[boot.SetupEnd]byte]*boot.Content
	hashes   *sev.Hashes // nil without a kernel
	uki      *boot.Unified
	table    []byte // UEFI_GPT_DATA
	doc      *Document
}

func (in Inputs) prepare() (*material, error) {
	if len(in.Firmware) == 0 {
		return nil, errors.New("no firmware given")
	}
	if len(in.Kernel) == 0 && (len(in.Initrd) > 0 || in.CommandLine != "") {
		return nil, errors.New("an initrd or a command line without a kernel")
	}
	if len(in.Kernel) > 0 && len(in.UKI) > 0 {
		return nil, errors.New("both a kernel and a unified kernel image are given")
	}
	if err := in.shapeOfMachine(); err != nil {
		return nil, err
	}
	in.defaults()
	m := &material{Inputs: in, patched: map[[boot.SetupEnd]byte]*boot.Content{}, doc: &Document{Schema: Schema}}
	var err error
	if m.firmware, err = ovmf.Parse(in.Firmware); err != nil {
		return nil, err
	}
	if err := m.prepareKernel(); err != nil {
		return nil, err
	}
	if len(in.UKI) > 0 {
		if m.uki, err = boot.ParseUnified(in.UKI, in.Stub); err != nil {
			return nil, err
		}
	}
	if len(in.Disk) > 0 {
		if m.table, err = efi.GPTData(in.Disk); err != nil {
			return nil, err
		}
	}
	if err := m.secureBoot(); err != nil {
		return nil, err
	}
	return m, m.describe()
}

// shapeOfMachine sees to it that the machine's tables are of the shape that is
// predicted for.
func (in *Inputs) shapeOfMachine() error {
	if in.Machine == nil {
		return nil
	}
	n, err := in.Machine.Processors()
	if err != nil {
		return err
	}
	if len(in.VCPUs) == 0 {
		in.VCPUs = []int{n}
	}
	if !slices.Equal(in.VCPUs, []int{n}) || len(in.Memory) > 1 {
		return fmt.Errorf("the ACPI tables are those of one machine, with %d vCPUs: predict for that number and for one size of memory", n)
	}
	return nil
}

// defaults fills in what most guests have.
func (in *Inputs) defaults() {
	if len(in.Platforms) == 0 {
		in.Platforms = Platforms()
		if in.InitData != nil {
			in.Platforms = append(in.Platforms, Bound()...)
		}
	}
	if len(in.VCPUs) == 0 {
		in.VCPUs = []int{1}
	}
	if len(in.CPUs) == 0 {
		in.CPUs = []string{"EPYC-v4"} // what Kata asks for, so that the host's does not matter
	}
	if len(in.VMMs) == 0 {
		in.VMMs = []sev.VMM{sev.QEMU}
	}
	if len(in.Features) == 0 {
		in.Features = []uint64{1}
	}
	if len(in.FPUs) == 0 {
		in.FPUs = []sev.FPU{sev.FPUReset}
	}
	if len(in.Headers) == 0 {
		in.Headers = []Header{Plain, Patched}
	}
}

func (m *material) prepareKernel() error {
	if len(m.Kernel) == 0 {
		return nil
	}
	m.kernel = boot.Bytes(m.Kernel)
	if len(m.Initrd) > 0 {
		m.initrd = boot.Bytes(m.Initrd)
	}
	// The hashes of SEV are SHA-256 of the same contents; each is hashed once.
	h, err := sev.HashBoot(nil, nil, m.CommandLine)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		content *boot.Content
		sum     *[32]byte
	}{{m.kernel, &h.Kernel}, {m.initrd, &h.Initrd}} {
		if c.content == nil {
			continue
		}
		sum, err := c.content.Sum(eventlog.SHA256)
		if err != nil {
			return err
		}
		*c.sum = [32]byte(sum)
	}
	m.hashes = &h
	return nil
}

// image is the kernel as a firmware finds it.
func (m *material) image(h Header, memory uint64) (*boot.Content, error) {
	if h == Plain {
		if m.plain == nil {
			p, err := efi.ParsePE(m.Kernel)
			if err != nil {
				return nil, fmt.Errorf("kernel: %w", err)
			}
			m.plain = boot.Image(p)
		}
		return m.plain, nil
	}
	raw, err := boot.PatchKernel(m.Kernel, len(m.Initrd), memory)
	if err != nil {
		return nil, err
	}
	// Most sizes of memory lead to the same header, and so to the same image.
	header := [boot.SetupEnd]byte(raw)
	if c, ok := m.patched[header]; ok {
		return c, nil
	}
	p, err := efi.ParsePE(raw)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	m.patched[header] = boot.Image(p)
	return m.patched[header], nil
}

// machine is what starts, as a firmware of the given kind finds it.
func (m *material) machine(v variant, needsTPM bool, log *eventlog.Log) (boot.Machine, error) {
	out := boot.Machine{Edition: m.Edition, UKI: m.uki, PartitionTable: m.table, IMA: m.IMA, SecureBoot: m.SecureBoot}
	if m.Machine != nil && (!needsTPM || m.Machine.HasTPM()) {
		out.ACPI, out.Configuration = m.Machine.ACPI(), m.Machine.Configuration()
	}
	if log != nil {
		out.Observe(log)
	}
	if m.kernel == nil {
		return out, nil
	}
	image, err := m.image(v.header, v.memory)
	if err != nil {
		return out, err
	}
	out.Direct = &boot.Direct{Kernel: image, KernelSize: len(m.Kernel), Initrd: m.initrd, CommandLine: m.CommandLine}
	return out, nil
}

// describe writes the inputs into the document.
func (m *material) describe() error {
	d := &m.doc.Inputs
	tail := m.firmware.Tail()
	digest := ""
	if m.wants(SNP) {
		sum := snpDigest(m.firmware)
		digest = hex.EncodeToString(sum[:])
	}
	file, err := describeFile(boot.Bytes(m.Firmware))
	if err != nil {
		return err
	}
	d.Firmware = &FirmwareInput{File: *file, SNPDigest: digest, Tail: tail}
	if layout, err := tdx.LayoutOf(m.firmware); err == nil && m.wants(TDX) {
		d.Firmware.TDLayout = &layout
	}
	d.Edition = string(m.Edition)
	d.VCPUs, d.Memory = m.VCPUs, m.Memory
	if err := m.describeMachine(); err != nil {
		return err
	}
	if m.kernel != nil {
		line := m.CommandLine
		d.CommandLine = &line
		if d.Kernel, err = describeFile(m.kernel); err != nil {
			return err
		}
		if m.initrd != nil {
			if d.Initrd, err = describeFile(m.initrd); err != nil {
				return err
			}
		}
	}
	if m.uki != nil {
		if d.UKI, err = describeFile(boot.Bytes(m.UKI)); err != nil {
			return err
		}
	}
	return nil
}

// describeMachine writes what QEMU says of the machine into the document.
func (m *material) describeMachine() error {
	if m.Machine == nil {
		return nil
	}
	for _, part := range m.Machine.ACPI() {
		file, err := describeFile(part.Content)
		if err != nil {
			return err
		}
		m.doc.Inputs.ACPI = append(m.doc.Inputs.ACPI, *file)
	}
	return nil
}

func describeFile(c *boot.Content) (*File, error) {
	sum, err := c.Sum(eventlog.SHA256)
	if err != nil {
		return nil, err
	}
	return &File{SHA256: hex.EncodeToString(sum), Size: c.Size()}, nil
}

func (m *material) wants(p Platform) bool { return slices.Contains(m.Platforms, p) }
