package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// reason is one claim that alone turns a good guest into a bad one.
type reason struct {
	claim  string // below the platform, with dots
	value  any    // instead of the good one; nil takes the claim away
	aspect string
	result int8 // of the aspect
	wanted []string
}

// platformCase is what the defaults make of one platform: good evidence, the
// reference values that know it, and every single reason to think otherwise.
// Claims are made up where no verifier here makes any; the others are in
// labs_test.go.
type platformCase struct {
	policy, member string
	claims         string // JSON
	values         map[string]string
	good           [3]int8 // executables, hardware, configuration
	blank          [3]int8 // the same without any reference value
	reasons        []reason
}

// allTrue is a claim set whose flags are true.
func allTrue(rest string, flags ...string) string {
	out := []string{rest}
	for _, f := range flags {
		out = append(out, fmt.Sprintf("%q:true", f))
	}
	return "{" + strings.Join(out, ",") + "}"
}

func flagReasons(aspect string, result int8, flags ...string) []reason {
	var out []reason
	for _, f := range flags {
		out = append(out, reason{f, false, aspect, result, []string{"true"}}, reason{f, nil, aspect, result, []string{"true"}})
	}
	return out
}

var (
	gpuHardware = []string{
		"x-nvidia-gpu-arch-check", "x-nvidia-gpu-attestation-report-cert-chain-fwid-match",
		"x-nvidia-gpu-attestation-report-parsed", "x-nvidia-gpu-attestation-report-signature-verified",
	}
	gpuCode = []string{
		"x-nvidia-gpu-driver-rim-fetched", "x-nvidia-gpu-driver-rim-measurements-available", "x-nvidia-gpu-driver-rim-schema-validated",
		"x-nvidia-gpu-driver-rim-signature-verified", "x-nvidia-gpu-driver-rim-version-match", "x-nvidia-gpu-vbios-rim-fetched",
		"x-nvidia-gpu-vbios-rim-measurements-available", "x-nvidia-gpu-vbios-rim-schema-validated",
		"x-nvidia-gpu-vbios-rim-signature-verified", "x-nvidia-gpu-vbios-rim-version-match",
	}
	switchHardware = []string{
		"x-nvidia-switch-arch-check", "x-nvidia-switch-attestation-report-cert-chain-fwid-match",
		"x-nvidia-switch-attestation-report-parsed", "x-nvidia-switch-attestation-report-signature-verified",
	}
	switchCode = []string{
		"x-nvidia-switch-bios-rim-fetched", "x-nvidia-switch-bios-rim-measurements-available",
		"x-nvidia-switch-bios-rim-schema-validated", "x-nvidia-switch-bios-rim-signature-verified", "x-nvidia-switch-bios-rim-version-match",
	}
	chain = `{"x-nvidia-cert-status":"valid","x-nvidia-cert-ocsp-status":"good"}`
)

func nvidiaReasons(report, rim string) []reason {
	return []reason{
		{"secboot", false, "configuration", 36, []string{"true"}},
		{"dbgstat", "enabled", "configuration", 36, []string{"disabled"}},
		{"measres", "fail", "executables", 33, []string{"success"}},
		{report + ".x-nvidia-cert-status", "expired", "hardware", 97, []string{"valid"}},
		{report + ".x-nvidia-cert-ocsp-status", "revoked", "hardware", 97, []string{"good"}},
		{rim + ".x-nvidia-cert-status", "expired", "executables", 33, []string{"valid"}},
		{rim + ".x-nvidia-cert-ocsp-status", nil, "executables", 33, []string{"good"}},
		{"simulated_root", "lab", "hardware", 97, nil},
	}
}

var platformCases = map[string]platformCase{
	"se": {
		DefaultCPU, "se", `{"cuid":"c"}`, nil, [3]int8{3, 2, 2}, [3]int8{3, 2, 2},
		[]reason{{"simulated_root", "lab", "hardware", 97, nil}},
	},
	"gpu": {
		"default_gpu", "nvidia", allTrue(`"measres":"success","dbgstat":"disabled","x-nvidia-gpu-vbios-version":"v","x-nvidia-gpu-driver-version":"d",
			"x-nvidia-gpu-attestation-report-cert-chain":`+chain+`,"x-nvidia-gpu-vbios-rim-cert-chain":`+chain,
			slices.Concat(gpuHardware, gpuCode, []string{"secboot"})...),
		map[string]string{"allowed_vbios_versions": `["v"]`, "allowed_driver_versions": `["d"]`},
		[3]int8{3, 2, 2}, [3]int8{3, 2, 3},
		slices.Concat(flagReasons("hardware", 97, gpuHardware...), flagReasons("executables", 33, gpuCode...),
			nvidiaReasons("x-nvidia-gpu-attestation-report-cert-chain", "x-nvidia-gpu-vbios-rim-cert-chain")),
	},
	"switch": {
		"default_switch", "nvidia", allTrue(`"measres":"success","dbgstat":"disabled","x-nvidia-switch-bios-version":"v",
			"x-nvidia-switch-attestation-report-cert-chain":`+chain+`,"x-nvidia-switch-bios-rim-cert-chain":`+chain,
			slices.Concat(switchHardware, switchCode, []string{"secboot"})...),
		map[string]string{"allowed_switch_bios_versions": `["v"]`},
		[3]int8{3, 2, 2}, [3]int8{3, 2, 3},
		slices.Concat(flagReasons("hardware", 97, switchHardware...), flagReasons("executables", 33, switchCode...),
			nvidiaReasons("x-nvidia-switch-attestation-report-cert-chain", "x-nvidia-switch-bios-rim-cert-chain")),
	},
	"ppcie": {
		"default_ppcie", "nvidia", `{"gpu_count":8,"switch_count":4}`, nil, [3]int8{0, 0, 2}, [3]int8{0, 0, 2},
		[]reason{{"simulated_root", "lab", "configuration", 36, nil}},
	},
}

func (c platformCase) input(t testing.TB, change func(claims map[string]any)) json.RawMessage {
	t.Helper()
	var claims map[string]any
	if err := json.Unmarshal([]byte(c.claims), &claims); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(claims)
	}
	raw, err := json.Marshal(map[string]any{c.member: claims, "report_data": "ff", "init_data": "00", "init_data_claims": nil})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// set changes the claim at a path with dots.
func set(claims map[string]any, path string, value any) {
	head, rest, deeper := strings.Cut(path, ".")
	switch {
	case deeper:
		set(claims[head].(map[string]any), rest, value)
	case value == nil:
		delete(claims, head)
	default:
		claims[head] = value
	}
}

func aspects(v token.Vector) [3]int8 {
	return [3]int8{v["executables"], v["hardware"], v["configuration"]}
}

func TestDefaultsForEveryPlatform(t *testing.T) {
	for name, c := range platformCases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
				t.Fatal(err)
			}
			appraise := func(input json.RawMessage) token.Vector {
				t.Helper()
				a, err := b.engine.Appraise(t.Context(), c.policy, input)
				if err != nil {
					t.Fatal(err)
				}
				return a.Vector
			}
			if got := aspects(appraise(c.input(t, nil))); got != c.blank {
				t.Errorf("without reference values: %v, want %v", got, c.blank)
			}
			for ref, value := range c.values {
				b.value(t, ref, value)
			}
			v := appraise(c.input(t, nil))
			if got := aspects(v); got != c.good || v.Status() != token.Affirming {
				t.Fatalf("good evidence: %v, want %v", got, c.good)
			}
			if x, err := b.engine.ExplainAppraisal(t.Context(), c.policy, c.input(t, nil)); err != nil || len(x.Findings) != 0 {
				t.Errorf("good evidence is explained: %+v, %v", x, err)
			}
			for _, r := range c.reasons {
				input := c.input(t, func(claims map[string]any) { set(claims, r.claim, r.value) })
				v := appraise(input)
				if v[r.aspect] != r.result || v.Status() == token.Affirming {
					t.Errorf("%s = %v: %s is %d, want %d", r.claim, r.value, r.aspect, v[r.aspect], r.result)
				}
				b.explained(t, c, r, input)
			}
		})
	}
}

// explained checks that an administrator learns what was seen and wanted.
func (b *bench) explained(t *testing.T, c platformCase, r reason, input json.RawMessage) {
	t.Helper()
	x, err := b.engine.ExplainAppraisal(t.Context(), c.policy, input)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(x.Findings, func(f api.Finding) bool { return f.Claim == r.claim })
	if i < 0 {
		t.Errorf("%s = %v is not explained: %+v", r.claim, r.value, x)
		return
	}
	f := x.Findings[i]
	if f.Seen != render(r.value) || !slices.Equal(f.Wanted, r.wanted) {
		t.Errorf("%s = %v: seen %q, wanted %q", r.claim, r.value, f.Seen, f.Wanted)
	}
	if x.Line < 1 || x.Rule == "" || !strings.HasPrefix(x.Policy, "attestation/"+c.policy+"@") {
		t.Errorf("%s: %s, rule %s, line %d", r.claim, x.Policy, x.Rule, x.Line)
	}
}

// The platforms without a rule are contraindicated, and so is what nobody
// knows.
func TestDefaultsForOtherPlatforms(t *testing.T) {
	b := newBench(t)
	if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
		t.Fatal(err)
	}
	for _, input := range []string{`{"csv":{}}`, `{"abacus":{"beads":100}}`, `{}`} {
		a, err := b.engine.Appraise(t.Context(), DefaultCPU, json.RawMessage(input))
		if err != nil || a.Vector.Status() != token.Contraindicated || aspects(a.Vector) != [3]int8{33, 97, 36} {
			t.Errorf("%s: %v, %v", input, a.Vector, err)
		}
		x, err := b.engine.ExplainAppraisal(t.Context(), DefaultCPU, json.RawMessage(input))
		if err != nil || len(x.Findings) != 1 || x.Findings[0].Claim != "platform" {
			t.Errorf("%s: %+v, %v", input, x, err)
		}
	}
}
