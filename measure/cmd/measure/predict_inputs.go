package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/qemu"
	"github.com/vouchsafe-cc/vouchsafe/measure/sev"
)

// predictFlags are the inputs of a prediction as they are given.
type predictFlags struct {
	prediction, image                            string
	firmware, edition, secureBoot                string
	kernel, initrd, commandLine, uki, disk       string
	stub                                         int
	phases                                       []string
	initData, machine, tpmLog, ccLog             string
	platforms, cpus, vmms, fpus, headers, memory []string
	features, runtime                            []string
	vcpus                                        []int
	ima, imaHash                                 string
	imaModules                                   []string
}

func (f *predictFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.prediction, "prediction", "", "`FILE` with a prediction that was made before, to write in another form")
	s.StringVar(&f.image, "image", "", "`FILE` that a simulated guest executes")
	s.StringVar(&f.firmware, "firmware", "", "`FILE` with the firmware, an OVMF build as QEMU gets it by -bios")
	s.StringVar(&f.edition, "edition", "", "`TAG` of edk2 that the firmware was built from: 202211, 202502 or 202608, or the nearest that is not newer")
	s.StringVar(&f.kernel, "kernel", "", "`FILE` with the kernel that the VMM loads")
	s.StringVar(&f.initrd, "initrd", "", "`FILE` with its initrd")
	s.StringVar(&f.commandLine, "cmdline", "", "its command line as the VMM gets it: `STRING`, or @FILE (a newline at its end does not count)")
	s.StringVar(&f.uki, "uki", "", "`FILE` with a unified kernel image that the firmware starts from a disk")
	s.IntVar(&f.stub, "stub-version", 0, "`VERSION` of the systemd-stub in it, where it does not say")
	s.StringSliceVar(&f.phases, "phase", nil, "`WORDS` that systemd extends into PCR 11, in order: "+strings.Join(boot.Phases, ","))
	s.StringVar(&f.disk, "disk", "", "`FILE` with the beginning of the disk, for its partition table")
	s.StringVar(&f.secureBoot, "secureboot-variables", "", "`DIR` with PK.esl, KEK.esl, db.esl and dbx.esl of a machine that enforces Secure Boot, for PCR 7")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document of the guest")
	s.IntSliceVar(&f.vcpus, "vcpus", nil, "`NUMBERS` of vCPUs to predict for (default 1, or that of --machine)")
	s.StringSliceVar(&f.memory, "memory", nil, "`SIZES` of memory to predict for, for example 2G,8G")
	s.StringSliceVar(&f.cpus, "cpu", nil, "processor `MODELS` of QEMU, or CPUID signatures (default EPYC-v4)")
	s.StringSliceVar(&f.vmms, "vmm", nil, "`VMMS` that start SEV guests: qemu, ec2, ec2-legacy, gce, krun (default qemu)")
	s.StringSliceVar(&f.features, "features", nil, "`BITS` of SEV_FEATURES (default 0x1)")
	s.StringSliceVar(&f.fpus, "fpu", nil, "initial FPU `STATES`: reset (hosts from Linux 6.10 on, the default) or zero (before)")
	s.StringSliceVar(&f.headers, "kernel-header", nil, "what a TD's firmware finds of the kernel's setup header: `FORMS` plain (QEMU 10.2 on), patched (before) (default both)")
	s.StringVar(&f.machine, "machine", "", "`DIR` that 'measure machine' wrote")
	s.StringVar(&f.tpmLog, "tpm-log", "", "`FILE` with the TPM's event log of a boot of this machine")
	s.StringVar(&f.ccLog, "cc-log", "", "`FILE` with the CCEL of a boot of this machine")
	s.StringVar(&f.ima, "ima", "", "`TEMPLATE` of the kernel's IMA, for PCR 10: none, ima-ng, ima-sig")
	s.StringVar(&f.imaHash, "ima-hash", "sha256", "`ALGORITHM` of the kernel's IMA")
	s.StringSliceVar(&f.imaModules, "ima-modules", nil, "`ALGORITHMS` that the kernel has as modules only")
	s.StringArrayVar(&f.runtime, "runtime-event", nil, "`EVENT` that the guest's agent logs: \"DOMAIN OPERATION CONTENT\" (repeatable, in order)")
	s.StringSliceVar(&f.platforms, "platform", nil, "`PLATFORMS` to predict for: sev, sev-es, snp, tdx, tpm, and of the init-data alone sgx, cca, az-snp-vtpm, az-tdx-vtpm (default all)")
}

// predictInputs reads what the flags name.
func (c *cli) predictInputs(f predictFlags) (in predict.Inputs, err error) {
	for _, file := range []struct {
		name string
		to   *[]byte
	}{{f.firmware, &in.Firmware}, {f.kernel, &in.Kernel}, {f.initrd, &in.Initrd}, {f.uki, &in.UKI}} {
		if file.name == "" {
			continue
		}
		if *file.to, err = c.readFile(file.name); err != nil {
			return in, err
		}
		if len(*file.to) == 0 {
			return in, fmt.Errorf("%s is empty", file.name)
		}
	}
	if in.CommandLine, err = c.commandLine(f.commandLine); err != nil {
		return in, err
	}
	in.Stub, in.Phases, in.VCPUs, in.CPUs = f.stub, f.phases, f.vcpus, f.cpus
	if in.InitData, err = c.initData(f.initData); err != nil {
		return in, err
	}
	if err := c.observations(f, &in); err != nil {
		return in, err
	}
	err = f.shapes(&in)
	return in, err
}

// maxDisk is how much of a disk is read: more than a partition table needs.
const maxDisk = 1 << 20

// observations reads what no file of the guest tells.
func (c *cli) observations(f predictFlags, in *predict.Inputs) (err error) {
	if f.disk != "" {
		if in.Disk, err = readBeginning(f.disk, maxDisk); err != nil {
			return err
		}
	}
	if f.secureBoot != "" {
		if in.SecureBoot, err = boot.ReadSecureBoot(func(name string) ([]byte, error) { return c.readFile(filepath.Join(f.secureBoot, name)) }); err != nil {
			return err
		}
	}
	if f.machine != "" {
		m, err := qemu.Read(f.machine)
		if err != nil {
			return fmt.Errorf("%s: %w", f.machine, err)
		}
		in.Machine = &m
	}
	if in.TPMLog, err = c.eventLog(f.tpmLog); err != nil {
		return err
	}
	in.CCLog, err = c.eventLog(f.ccLog)
	return err
}

// eventLog reads an event log; no name is none.
func (c *cli) eventLog(name string) (*eventlog.Log, error) {
	if name == "" {
		return nil, nil
	}
	raw, err := c.readFile(name)
	if err != nil {
		return nil, err
	}
	l, err := eventlog.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// shapes reads the flags that list what to predict for.
func (f predictFlags) shapes(in *predict.Inputs) (err error) {
	if f.edition != "" {
		if in.Edition, err = boot.ParseEdition(f.edition); err != nil {
			return err
		}
	}
	if in.Platforms, err = each("platform", f.platforms, append(predict.Platforms(), predict.Bound()...)...); err != nil {
		return err
	}
	if in.VMMs, err = each("vmm", f.vmms, sev.QEMU, sev.EC2, sev.EC2Legacy, sev.GCE, sev.KRUN); err != nil {
		return err
	}
	if in.Headers, err = each("kernel-header", f.headers, predict.Plain, predict.Patched); err != nil {
		return err
	}
	for _, s := range f.fpus {
		switch s {
		case "reset":
			in.FPUs = append(in.FPUs, sev.FPUReset)
		case "zero":
			in.FPUs = append(in.FPUs, sev.FPUZero)
		default:
			return fmt.Errorf("--fpu %q is neither reset nor zero", s)
		}
	}
	for _, s := range f.features {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return fmt.Errorf("--features %q is not a number", s)
		}
		in.Features = append(in.Features, n)
	}
	for _, s := range f.memory {
		n, err := parseSize(s)
		if err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		in.Memory = append(in.Memory, n)
	}
	for _, s := range f.runtime {
		r, err := parseRuntimeEvent(s)
		if err != nil {
			return err
		}
		in.Runtime = append(in.Runtime, r)
	}
	return f.measuredFiles(in)
}

// measuredFiles reads what the kernel's IMA was built with.
func (f predictFlags) measuredFiles(in *predict.Inputs) (err error) {
	if f.ima == "" {
		return nil
	}
	all, err := each("ima", []string{f.ima}, boot.NoIMA, boot.IMANG, boot.IMASig)
	if err != nil {
		return err
	}
	in.IMA.Template = all[0]
	algorithms := map[string]eventlog.Algorithm{"sha1": eventlog.SHA1, "sha256": eventlog.SHA256, "sha384": eventlog.SHA384, "sha512": eventlog.SHA512}
	var ok bool
	if in.IMA.Hash, ok = algorithms[f.imaHash]; !ok {
		return fmt.Errorf("--ima-hash %q is not known", f.imaHash)
	}
	for _, s := range f.imaModules {
		alg, ok := algorithms[s]
		if !ok {
			return fmt.Errorf("--ima-modules: %q is not known", s)
		}
		in.IMA.Modules = append(in.IMA.Modules, alg)
	}
	return nil
}

// each checks that all of a flag's values are among those allowed.
func each[T ~string](flag string, given []string, allowed ...T) ([]T, error) {
	var out []T
	for _, s := range given {
		if !slices.Contains(allowed, T(s)) {
			return nil, fmt.Errorf("--%s %q: want one of %v", flag, s, allowed)
		}
		out = append(out, T(s))
	}
	return out, nil
}

// parseSize reads a size as QEMU's -m takes it: 2G, 512M, or a number of MiB.
func parseSize(s string) (uint64, error) {
	shift := 20
	number := s
	for suffix, n := range map[string]int{"K": 10, "M": 20, "G": 30, "T": 40} {
		if rest, ok := strings.CutSuffix(strings.ToUpper(s), suffix); ok {
			number, shift = rest, n
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 || n > 1<<52>>shift {
		return 0, fmt.Errorf("%q is not a size of memory like 2G or 512M", s)
	}
	return n << shift, nil
}

// parseRuntimeEvent reads an event as its log writes it.
func parseRuntimeEvent(s string) (r eventlog.RuntimeEvent, err error) {
	domain, rest, ok := strings.Cut(s, " ")
	operation, content, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		return r, fmt.Errorf("--runtime-event %q: want \"DOMAIN OPERATION CONTENT\"", s)
	}
	r = eventlog.RuntimeEvent{Domain: domain, Operation: operation, Content: content}
	return r, r.Validate()
}
