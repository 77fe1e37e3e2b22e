package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain/obtaintest"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
	"github.com/vouchsafe-cc/vouchsafe/measure/tdx"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

const testInitData = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\n\"aa.toml\" = ''\n"

// bench is a directory in which the command runs, on a machine of the test's.
type bench struct {
	*testing.T
	dir     string
	machine *obtain.Machine // nil for this one
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir()}
	for name, text := range map[string]string{"agent": "an agent", "initdata.toml": testInitData} {
		if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// measure runs the command; words that start with @ are paths in the directory.
func (b *bench) measure(code int, args ...string) (stdout, stderr string) {
	b.Helper()
	for i, a := range args {
		if at := strings.LastIndexByte(a, '@'); at >= 0 {
			args[i] = a[:at] + b.path(a[at+1:])
		}
	}
	var out, err bytes.Buffer
	c := &cli{in: strings.NewReader(""), out: &out, err: &err}
	if b.machine != nil {
		c.machine = func(...string) obtain.Machine { return *b.machine }
	}
	if got := c.run(b.Context(), args); got != code {
		b.Fatalf("measure %v: exit code %d, want %d\n%s%s", args, got, code, &out, &err)
	}
	return out.String(), err.String()
}

func (b *bench) write(name, text string) {
	b.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) on(k *tsmtest.Kernel) {
	m := obtaintest.Machine(k)
	b.machine = &m
}

// What the command obtains through the kernel of a simulated guest, it verifies.
func TestObtain(t *testing.T) {
	for name, guest := range map[string]func(b *bench){
		"snp": func(b *bench) {
			b.measure(fault.ExitOK, "sim", "vendor", "@vendor")
			b.measure(fault.ExitOK, "sim", "guest", "--vendor", "@vendor", "--out", "@guest", "--image", "@agent", "--cmdline", "quiet", "--init-data", "@initdata.toml")
			s, err := snp.OpenSimulator(b.path("guest"))
			if err != nil {
				b.Fatal(err)
			}
			b.on(obtaintest.SNP(s))
		},
		"tdx": func(b *bench) {
			b.measure(fault.ExitOK, "sim", "tdx", "vendor", "@vendor")
			b.measure(fault.ExitOK, "sim", "tdx", "guest", "--vendor", "@vendor", "--out", "@guest", "--image", "@agent", "--cmdline", "quiet", "--init-data", "@initdata.toml")
			s, err := tdx.OpenSimulator(b.path("guest"))
			if err != nil {
				b.Fatal(err)
			}
			kernel, err := obtaintest.TDX(s)
			if err != nil {
				b.Fatal(err)
			}
			b.on(kernel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			guest(b)
			evidence, told := b.measure(fault.ExitOK, "obtain", "--report-data", "00ff", "--runtime-log", "@log")
			if want := "measure: this is " + name + ": configfs-tsm has provider "; !strings.Contains(told, want) {
				t.Errorf("stderr %q, want %q", told, want)
			}
			b.write("evidence.json", evidence)
			verdict, _ := b.measure(fault.ExitOK, "verify", "--evidence", "@evidence.json", "--report-data", "00ff", "--init-data", "@initdata.toml",
				"--simulated-root", "mine=@vendor/root.pem", "--allow-no-collateral")
			if !strings.Contains(verdict, "platform:     "+name) {
				t.Error(verdict)
			}
			b.measure(fault.ExitEvidence, "verify", "--evidence", "@evidence.json", "--report-data", "00fe", "--init-data", "@initdata.toml",
				"--simulated-root", "mine=@vendor/root.pem", "--allow-no-collateral")
			doc, err := initdata.Parse([]byte(testInitData))
			if err != nil {
				t.Fatal(err)
			}
			table, _ := b.measure(fault.ExitOK, "obtain", "--platform", name, "--report-data", "00ff", "--runtime-log", "@log", "-o", "table")
			if !strings.HasPrefix(table, "CLAIM") || !strings.Contains(table, hex.EncodeToString(doc.Digest()[:32])) {
				t.Errorf("the table has no init-data:\n%s", table)
			}
			probes, _ := b.measure(fault.ExitOK, "obtain", "--probe")
			var list []struct {
				Platform string
				Found    bool
			}
			if err := json.Unmarshal([]byte(probes), &list); err != nil || len(list) == 0 || !list[len(list)-1].Found || list[len(list)-1].Platform != name {
				t.Errorf("%s, %v", probes, err)
			}
			b.measure(fault.ExitUsage, "obtain", "--report-data", "00ff", "--runtime-log", "@log", "--ak-out", "@ak.pem")
		})
	}
}

// A real TPM, from its socket to a verifier to which its key was enrolled.
func TestObtainOfTPM(t *testing.T) {
	b := newBench(t)
	socket := swtpmtest.Socket(t)
	args := []string{"obtain", "--platform", "tpm", "--tpm-device", socket, "--report-data", "00ff", "--runtime-log", "@log", "--ak-out", "@ak.pem"}
	evidence, told := b.measure(fault.ExitOK, args...)
	if !strings.Contains(told, "a TPM 2.0 answers") {
		t.Errorf("stderr %q", told)
	}
	b.write("evidence.json", evidence)
	verdict, _ := b.measure(fault.ExitOK, "verify", "--evidence", "@evidence.json", "--report-data", "00ff", "--allow-unbound-init-data", "--enrolled-key", "this=@ak.pem")
	if !strings.Contains(verdict, "ak_trust") {
		t.Error(verdict)
	}
	b.measure(fault.ExitEvidence, "verify", "--evidence", "@evidence.json", "--report-data", "00ff", "--allow-unbound-init-data")
	b.measure(fault.ExitConflict, args...) // the key's file is there
}

func TestObtainNothing(t *testing.T) {
	b := newBench(t)
	b.on(&tsmtest.Kernel{})
	out, told := b.measure(fault.ExitNotFound, "obtain", "--report-data", "00ff")
	if out != "" {
		t.Errorf("evidence of nothing: %s", out)
	}
	for _, want := range []string{"\n  tdx          there is no configfs-tsm", "\n  snp ", "\n  cca ", "\n  az-snp-vtpm ", "\n  tpm          no TPM device", "\n  hint "} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not told: %s", want, told)
		}
	}
	if _, told := b.measure(fault.ExitNotFound, "obtain", "--report-data", "00ff", "--platform", "snp"); strings.Contains(told, "tdx") {
		t.Errorf("other platforms are told of: %s", told)
	}
	table, _ := b.measure(fault.ExitNotFound, "obtain", "--probe", "-o", "table")
	if strings.Count(table, "\n") != 1+len(obtain.Platforms()) {
		t.Error(table)
	}
	for _, args := range [][]string{
		{}, {"--report-data", ""}, {"--report-data", "xy"}, {"--report-data", strings.Repeat("00", 65)}, {"--report-data", "00", "--probe"},
		{"--report-data", "00", "--platform", "sample"},
	} {
		b.measure(fault.ExitUsage, append([]string{"obtain"}, args...)...)
	}
}
