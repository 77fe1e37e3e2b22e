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
	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

// realEvidence is evidence of real machines, from the folder that lies beside
// the checkout, and what is known of it.
var realEvidence = map[string]struct {
	file string
	args []string
	code int
	// checks are outcomes; those that are not named have passed, or make no sense.
	checks map[measure.CheckName]measure.Outcome
	claims map[string]string // beginnings
	signed int               // so many bytes at the start of the file are signed themselves
}{
	"an SNP report of Milan, version 2": {
		file: "snp/test-report.bin",
		args: []string{
			"--platform", "snp", "--certs", "snp/test-vcek.der", "--report-data", "ec6c52d7", "--at", "2026-01-01T00:00:00Z", "--allow-no-collateral",
		},
		code: fault.ExitEvidence, // the report data goes on
		checks: map[measure.CheckName]measure.Outcome{
			"revocation": measure.Waived, "binding": measure.Failed,
		},
		claims: map[string]string{"measurement": "a1f39304", "chip_id": "c38427a3", "reported_tcb_microcode": "115"},
	},
	"the same, bound to anything": {
		file: "snp/test-report.bin",
		args: []string{
			"--platform", "snp", "--certs", "snp/test-vcek.der", "--allow-unbound", "--at", "2026-01-01T00:00:00Z", "--allow-no-collateral",
		},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived, "binding": measure.Waived},
		signed: 0x2a0,
	},
	"the same after its certificate": {
		file: "snp/test-report.bin",
		args: []string{
			"--platform", "snp", "--certs", "snp/test-vcek.der", "--allow-unbound", "--at", "2030-02-01T00:00:00Z", "--allow-no-collateral",
		},
		code: fault.ExitEvidence,
		checks: map[measure.CheckName]measure.Outcome{
			"revocation": measure.Waived, "binding": measure.Waived, "chain": measure.Failed,
		},
	},
	"a debug TD": {
		file:   "tdx/tdx_quote_4.dat",
		args:   []string{"--platform", "tdx", "--allow-unbound", "--allow-no-collateral", "--at", "2026-01-01T00:00:00Z", "--allow-debug"},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived, "tcb": measure.Waived, "attributes": measure.Waived, "binding": measure.Waived},
		claims: map[string]string{"quote.body.mr_td": "705ee938", "quote.body.rtmr_0": "e940da7c", "fmspc": "50806f000000"},
		signed: 48 + 584,
	},
	"a debug TD without leave": {
		file: "tdx/tdx_quote_4.dat",
		args: []string{"--platform", "tdx", "--allow-unbound", "--at", "2026-01-01T00:00:00Z"},
		code: fault.ExitEvidence,
		checks: map[measure.CheckName]measure.Outcome{
			"revocation": measure.Failed, "tcb": measure.Failed, "attributes": measure.Failed, "binding": measure.Waived,
		},
	},
	"an SGX enclave": {
		file:   "sgx/occlum_quote.dat",
		args:   []string{"--platform", "sgx", "--nonce", "test", "--allow-no-collateral", "--at", "2026-01-01T00:00:00Z", "--allow-debug"},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived, "tcb": measure.Waived, "attributes": measure.Waived},
		claims: map[string]string{"body.mr_enclave": "8f173e46", "body.mr_signer": "83d719e7", "fmspc": "00606a000000"},
		signed: 48 + 384,
	},
	"a TD of Azure's, by itself": {
		file: "azure/tdx/td-quote.bin",
		args: []string{"--platform", "tdx", "--allow-unbound", "--allow-no-collateral", "--at", "2026-01-01T00:00:00Z"},
		checks: map[measure.CheckName]measure.Outcome{
			"revocation": measure.Waived, "tcb": measure.Waived, "binding": measure.Waived,
		},
		claims: map[string]string{"quote.body.mr_td": "024a32b0", "fmspc": "00806f050000"},
		signed: 48 + 584,
	},
	"an SNP machine of Azure's": {
		file:   "azure/snp/evidence-v1.json",
		args:   []string{"--platform", "az-snp-vtpm", "--nonce", "challenge", "--allow-no-collateral", "--at", "2026-01-01T00:00:00Z"},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived},
		claims: map[string]string{"measurement": "agY76d159jcch", "tpm.pcr00": "e15c4479"},
	},
	"a TDX machine of Azure's": {
		file:   "azure/tdx/evidence-v1.json",
		args:   []string{"--platform", "az-tdx-vtpm", "--nonce", "challenge", "--allow-no-collateral", "--at", "2026-01-01T00:00:00Z"},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived, "tcb": measure.Waived},
		claims: map[string]string{"quote.body.mr_td": "024a32b0", "tpm.pcr00": "782b20b1"},
	},
	"a TPM that vouches for itself": {
		file:   "tpm/tpm_evidence.json",
		args:   []string{"--platform", "tpm", "--allow-unbound"},
		code:   fault.ExitEvidence,
		checks: map[measure.CheckName]measure.Outcome{"chain": measure.Failed, "binding": measure.Waived},
	},
	"a TPM that vouches for itself, and may": {
		file:   "tpm/tpm_evidence.json",
		args:   []string{"--platform", "tpm", "--allow-unbound", "--allow-self-declared-key"},
		checks: map[measure.CheckName]measure.Outcome{"chain": measure.Waived, "binding": measure.Waived},
	},
	"the example token of CCA": {
		file: "cca/cca-example-token.cbor",
		args: []string{
			"--platform", "cca", "--simulated-root", "example=cca/tastore.json", "--allow-unbound",
		},
		checks: map[measure.CheckName]measure.Outcome{"binding": measure.Waived},
	},
	"an H100": {
		file: "nvidia/hopperAttestationReport.txt",
		args: []string{
			"--platform", "nvidia", "--gpu-certs", "nvidia/hopper_cert_chain_case1.txt", "--devices", "1", "--allow-no-collateral",
			"--report-data", "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb",
		},
		checks: map[measure.CheckName]measure.Outcome{"revocation": measure.Waived, "tcb": measure.Waived},
		claims: map[string]string{"config.driver_version": "550.90.07", "config.vbios_version": "96.00.9f.00.01"},
	},
}

// verifyArgs are the arguments for a file, with the folder before the names in
// it.
func verifyArgs(dir, file string, args []string) []string {
	out := []string{"verify", "--evidence", file, "--allow-unbound-init-data", "-o", "json"}
	for i, a := range args {
		if i > 0 && (args[i-1] == "--certs" || args[i-1] == "--gpu-certs") {
			a = filepath.Join(dir, a)
		}
		if name, path, ok := strings.Cut(a, "="); ok {
			a = name + "=" + filepath.Join(dir, path)
		}
		out = append(out, a)
	}
	return out
}

// judged runs the command in this process.
func judged(t *testing.T, args []string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestRealEvidence(t *testing.T) {
	dir := evidencetest.Need(t)
	for name, c := range realEvidence {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := judged(t, verifyArgs(dir, filepath.Join(dir, c.file), c.args))
			if code != c.code {
				t.Fatalf("exit code %d, want %d: %s", code, c.code, stderr)
			}
			var v measure.Verdict
			if err := json.Unmarshal([]byte(stdout), &v); err != nil {
				t.Fatal(err, stdout)
			}
			for _, check := range v.Checks {
				want, named := c.checks[check.Name]
				switch {
				case check.Name == measure.CheckInitData:
				case named && check.Outcome != want, !named && check.Outcome != measure.Passed && check.Outcome != measure.NotApplicable:
					t.Errorf("%s is %s: %s", check.Name, check.Outcome, check.Reason)
				}
			}
			for path, want := range c.claims {
				if got := claimAt(v.Claims, path); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", path, got, want)
				}
			}
		})
	}
}

// claimAt finds a claim. Names may have dots of their own.
func claimAt(c map[string]any, path string) string {
	if v, ok := c[path]; ok {
		raw, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return strings.Trim(string(raw), `"`)
	}
	for name, v := range c {
		inner, ok := v.(map[string]any)
		if rest, below := strings.CutPrefix(path, name+"."); ok && below {
			return claimAt(inner, rest)
		}
	}
	return ""
}

// mutations is how many bytes of each file are changed.
const mutations = 150

// A change to evidence that is accepted is refused, or it changes nothing that
// the verdict says: some bytes are signed by nobody, like the spaces in JSON.
func TestMutatedEvidence(t *testing.T) {
	dir := evidencetest.Need(t)
	for name, c := range realEvidence {
		if c.code != fault.ExitOK {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(dir, c.file))
			if err != nil {
				t.Fatal(err)
			}
			_, whole, _ := judged(t, verifyArgs(dir, filepath.Join(dir, c.file), c.args))
			file := filepath.Join(t.TempDir(), "evidence")
			step, kept := max(1, len(raw)/mutations), 0
			for at := 0; at < len(raw); at += step {
				bad := bytes.Clone(raw)
				bad[at] ^= 1 << (at % 7)
				if err := os.WriteFile(file, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				code, stdout, stderr := judged(t, verifyArgs(dir, file, c.args))
				switch {
				case code == fault.ExitOK && at < c.signed:
					t.Fatalf("byte %#x is signed, and a change of it is accepted", at)
				case code == fault.ExitOK && stdout != whole:
					t.Fatalf("a change of byte %#x is accepted and changes the verdict:\n%s", at, stdout)
				case code == fault.ExitOK:
					kept++
				case code != fault.ExitEvidence:
					t.Fatalf("byte %#x: exit code %d: %s", at, code, stderr)
				}
			}
			if kept > len(raw)/step/5 {
				t.Errorf("%d of %d changes make no difference", kept, len(raw)/step)
			}
		})
	}
}

// A certificate that came in a file of its own is as good as its signature.
func TestMutatedCertificate(t *testing.T) {
	dir := evidencetest.Need(t)
	raw, err := os.ReadFile(filepath.Join(dir, "snp", "test-vcek.der"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vcek.der")
	for at := 0; at < len(raw); at += len(raw) / mutations {
		bad := bytes.Clone(raw)
		bad[at] ^= 1 << (at % 7)
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, _ := judged(t, []string{
			"verify", "--evidence", filepath.Join(dir, "snp", "test-report.bin"), "--certs", file, "--allow-unbound", "--allow-unbound-init-data",
			"--at", "2026-01-01T00:00:00Z", "--allow-no-collateral",
		})
		if code == fault.ExitOK {
			t.Fatalf("a certificate with byte %#x changed (of %s) is accepted", at, hex.EncodeToString(raw[at:at+1]))
		}
	}
}
