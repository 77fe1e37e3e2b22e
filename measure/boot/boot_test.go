package boot_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// boots are real boots under QEMU with swtpm, with the PCRs read in the guest.
type boots struct {
	Inputs struct {
		KernelSHA256 string `json:"kernel_sha256"`
		KernelSHA384 string `json:"kernel_sha384"`
		InitrdSHA256 string `json:"initrd_sha256"`
		InitrdSHA384 string `json:"initrd_sha384"`
		InitrdSize   int    `json:"initrd_size"`
		Append       string
	}
	Authenticode map[string]map[string]string
	Runs         map[string]realBoot
}

type realBoot struct {
	Log, Firmware, Mem, Append string
	InitrdSHA256               string `json:"initrd_sha256"`
	InitrdSHA384               string `json:"initrd_sha384"`
	KernelAuthenticode         map[string]map[string]string
	Kernel2                    map[string]map[string]string `json:"kernel_authenticode"`
	PCRs                       map[string]map[string]string
}

func realBoots(t testing.TB) boots {
	t.Helper()
	var b boots
	if err := json.Unmarshal(evidencetest.File(t, "launch", "own", "tpm", "expected.json"), &b); err != nil {
		t.Fatal(err)
	}
	if len(b.Runs) < 9 {
		t.Fatalf("only %d boots: did the file change?", len(b.Runs))
	}
	return b
}

// known is a content of which the two digests are known.
func known(t testing.TB, sha256, sha384 string) *boot.Content {
	t.Helper()
	sums := map[eventlog.Algorithm][]byte{}
	for alg, text := range map[eventlog.Algorithm]string{eventlog.SHA256: sha256, eventlog.SHA384: sha384} {
		sum, err := hex.DecodeString(text)
		if err != nil || len(sum) != alg.Size() {
			t.Fatalf("digest %q: %v", text, err)
		}
		sums[alg] = sum
	}
	return boot.Known(0, sums)
}

func (b boots) machine(t testing.TB, name string) boot.Machine {
	t.Helper()
	run := b.Runs[name]
	m := boot.Machine{IMA: boot.IMA{Template: boot.IMASig, Hash: eventlog.SHA256}}
	switch {
	case strings.Contains(run.Firmware, "2022.11"):
		m.Edition = boot.Stable202211
	case strings.Contains(run.Firmware, "2025.02"):
		m.Edition = boot.Stable202502
	case strings.Contains(run.Firmware, "2026.08"):
		m.Edition = boot.Stable202608
	}
	if !strings.HasPrefix(name, "k612") {
		m.IMA.Modules = []eventlog.Algorithm{eventlog.SHA384} // as Debian's 6.1 has it
	}
	l, err := eventlog.Parse(evidencetest.File(t, "launch", "own", "tpm", run.Log))
	if err != nil {
		t.Fatal(err)
	}
	m.Observe(l)
	linux := known(t, b.Inputs.InitrdSHA256, b.Inputs.InitrdSHA384)
	if name == "uki" {
		m.UKI = &boot.Unified{
			Image: known(t, b.Authenticode["sha256"]["uki"], b.Authenticode["sha384"]["uki"]), Stub: 252,
			Inner: known(t, b.Authenticode["sha256"]["kernel_unpatched"], b.Authenticode["sha384"]["kernel_unpatched"]),
			Line:  evidencetest.File(t, "launch", "own", "tpm", "append.txt"),
			Sections: map[string]*boot.Content{
				".linux": known(t, b.Inputs.KernelSHA256, b.Inputs.KernelSHA384), ".initrd": linux,
				".cmdline": boot.Bytes(evidencetest.File(t, "launch", "own", "tpm", "append.txt")), ".osrel": boot.Bytes(evidencetest.File(t, "launch", "own", "tpm", "osrel")),
				".uname": boot.Bytes([]byte("not measured by 252")),
			},
		}
		return m
	}
	d := &boot.Direct{Initrd: linux, CommandLine: b.Inputs.Append}
	if run.Kernel2 != nil {
		d.Kernel = known(t, run.Kernel2["sha256"]["patched_"+run.Mem], run.Kernel2["sha384"]["patched_"+run.Mem])
		d.Initrd = known(t, run.InitrdSHA256, run.InitrdSHA384)
		d.CommandLine = run.Append
	} else {
		key := "kernel_patched_by_qemu<=10.1_mem_" + run.Mem
		d.Kernel = known(t, b.Authenticode["sha256"][key], b.Authenticode["sha384"][key])
	}
	m.Direct = d
	return m
}

func samePCR(pcr int) int { return pcr }

// Nine boots, sixteen registers, two banks: what is predicted is what the guest
// read from its TPM. Only the firmware's own volumes and the tables of the
// machine come from the logs.
func TestRealBoots(t *testing.T) {
	b := realBoots(t)
	for name, run := range b.Runs {
		t.Run(name, func(t *testing.T) {
			events, err := b.machine(t, name).Events()
			if err != nil {
				t.Fatal(err)
			}
			for bank, alg := range map[string]eventlog.Algorithm{"sha256": eventlog.SHA256, "sha384": eventlog.SHA384} {
				got, err := boot.Replay(events, alg, samePCR)
				if err != nil {
					t.Fatal(err)
				}
				for pcr := range 16 {
					want := run.PCRs[fmt.Sprint(pcr)][bank]
					r, ok := got[pcr]
					if !ok {
						r.Value = eventlog.Initial(pcr, alg)
					}
					if hex.EncodeToString(r.Value) != want {
						t.Errorf("PCR %d in %s: %x, want %s %v", pcr, bank, r.Value, want, r.Missing)
					}
				}
			}
		})
	}
}

// PCR 11 in four banks over four phases, as systemd-measure computes it.
func TestPCR11(t *testing.T) {
	var file struct {
		Vectors []struct {
			Sections []string `json:"sections_in_order"`
			PCR11    map[string][]struct{ Phase, Hash string }
		}
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "own", "pcr11", "expected.json"), &file); err != nil {
		t.Fatal(err)
	}
	banks := map[string]eventlog.Algorithm{"sha1": eventlog.SHA1, "sha256": eventlog.SHA256, "sha384": eventlog.SHA384, "sha512": eventlog.SHA512}
	tried := 0
	for _, v := range file.Vectors {
		u := &boot.Unified{Stub: 252, Sections: map[string]*boot.Content{}}
		for _, name := range v.Sections {
			u.Sections["."+name] = boot.Bytes(evidencetest.File(t, "launch", "own", "pcr11", name))
		}
		for bank, rows := range v.PCR11 {
			for _, row := range rows {
				u.Phases = strings.Split(row.Phase, ":")
				got, err := boot.Replay(append(u.MeasureSections(), u.PhaseEvents()...), banks[bank], samePCR)
				if err != nil {
					t.Fatal(err)
				}
				if hex.EncodeToString(got[11].Value) != row.Hash {
					t.Errorf("%v in %s, %s: %x, want %s", v.Sections, bank, row.Phase, got[11].Value, row.Hash)
				}
				tried++
			}
		}
	}
	if tried < 32 {
		t.Errorf("only %d vectors", tried)
	}
}
