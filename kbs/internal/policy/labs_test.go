package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
)

// labCase is what the defaults make of a platform whose claims come from its
// verifier, over evidence of its simulator. Paths have dots; "*" is every
// element of a list.
type labCase struct {
	policy  string
	root    string            // that the policy must accept by name
	values  map[string]string // name of a reference value to the claim that it is taken from
	least   map[string]string // those that are one number, the least good one
	good    [3]int8           // executables, hardware, configuration
	blank   [3]int8           // the same without any reference value
	reasons []reason          // wanted is nil where it is the good value
}

// worse makes a reason of each claim: another value, and none at all.
func worse(aspect string, result int8, claims ...string) []reason {
	var out []reason
	for _, c := range claims {
		out = append(out, reason{c, "something else", aspect, result, nil}, reason{c, nil, aspect, result, nil})
	}
	return out
}

var intelCollateral = []reason{
	{"tcb_status", "OutOfDate", "hardware", 97, nil},
	{"tcb_status", nil, "hardware", 97, nil}, // no collateral
	{"collateral_expiration_status", "1", "hardware", 97, nil},
}

var labCases = map[measure.Platform]labCase{
	measure.SNP: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{
			"snp_launch_measurement": "measurement", "snp_bootloader": "reported_tcb_bootloader", "snp_microcode": "reported_tcb_microcode",
			"snp_snp_svn": "reported_tcb_snp", "snp_tee_svn": "reported_tcb_tee", "snp_smt_enabled": "platform_smt_enabled",
			"snp_tsme_enabled": "platform_tsme_enabled", "snp_guest_abi_major": "policy_abi_major", "snp_guest_abi_minor": "policy_abi_minor",
			"snp_single_socket": "policy_single_socket", "snp_smt_allowed": "policy_smt_allowed",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 3},
		reasons: slices.Concat(
			worse("executables", 33, "measurement"),
			worse("hardware", 97, "reported_tcb_bootloader", "reported_tcb_microcode", "reported_tcb_snp", "reported_tcb_tee"),
			[]reason{{"reported_tcb_snp", 23, "hardware", 97, nil}, {"reported_tcb_snp", "24", "hardware", 97, nil}},
			worse("configuration", 36, "policy_debug_allowed", "policy_migrate_ma"),
			[]reason{{"policy_debug_allowed", true, "configuration", 36, nil}, {"policy_migrate_ma", true, "configuration", 36, nil}},
		),
	},
	measure.TDX: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{
			"mr_td": "quote.body.mr_td", "xfam": "quote.body.xfam", "rtmr_1": "quote.body.rtmr_1", "rtmr_2": "quote.body.rtmr_2",
			"tdvfkernel": "uefi_event_logs.1.digests.0.digest", "tdvfkernelparams": "uefi_event_logs.2.digests.0.digest",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 36},
		reasons: slices.Concat(
			worse("executables", 33, "quote.body.rtmr_1", "quote.body.rtmr_2"),
			worse("hardware", 97, "quote.header.tee_type", "quote.header.vendor_id", "quote.body.mr_td"),
			intelCollateral,
			worse("configuration", 36, "quote.body.xfam", "td_attributes.debug"),
			[]reason{{"td_attributes.debug", true, "configuration", 36, nil}},
		),
	},
	measure.SGX: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{
			"sgx_mr_enclave": "body.mr_enclave", "sgx_attributes_flags": "body.attributes.flags", "sgx_attributes_xfrm": "body.attributes.xfrm",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 2, 3},
		reasons: slices.Concat(
			worse("executables", 33, "body.mr_enclave"), intelCollateral,
			worse("configuration", 36, "debug"), []reason{{"debug", true, "configuration", 36, nil}},
		),
	},
	measure.AzSNPvTPM: { // every value is a string
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{
			"measurement": "measurement", "snp_pcr11": "tpm.pcr11", "tcb_bootloader": "reported_tcb_bootloader", "tcb_microcode": "reported_tcb_microcode",
			"tcb_snp": "reported_tcb_snp", "tcb_tee": "reported_tcb_tee", "smt_enabled": "platform_smt_enabled", "tsme_enabled": "platform_tsme_enabled",
			"abi_major": "policy_abi_major", "abi_minor": "policy_abi_minor", "single_socket": "policy_single_socket", "smt_allowed": "policy_smt_allowed",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 36},
		reasons: slices.Concat(
			worse("executables", 33, "measurement", "tpm.pcr11"),
			worse("hardware", 97, "reported_tcb_bootloader", "reported_tcb_microcode", "reported_tcb_snp", "reported_tcb_tee"),
			[]reason{{"reported_tcb_snp", 24, "hardware", 97, nil}},
			worse("configuration", 36, "policy_debug_allowed", "policy_migrate_ma", "platform_smt_enabled", "platform_tsme_enabled",
				"policy_abi_major", "policy_abi_minor", "policy_single_socket", "policy_smt_allowed"),
			[]reason{{"policy_debug_allowed", "true", "configuration", 36, nil}, {"policy_migrate_ma", "true", "configuration", 36, nil}},
		),
	},
	measure.AzTDXvTPM: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{"mr_td": "quote.body.mr_td", "xfam": "quote.body.xfam", "tdx_pcr11": "tpm.pcr11"},
		good:   [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 36},
		reasons: slices.Concat(
			worse("executables", 33, "tpm.pcr11"),
			worse("hardware", 97, "quote.header.tee_type", "quote.header.vendor_id", "quote.body.mr_td", "tcb_status"),
			worse("configuration", 36, "quote.body.xfam", "td_attributes.debug"),
			[]reason{{"td_attributes.debug", true, "configuration", 36, nil}},
		),
	},
	measure.TPM: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{"tpm_pcr11": "pcr11", "trusted_aks": "ak_public"},
		good:   [3]int8{3, 2, 0}, blank: [3]int8{33, 97, 0},
		reasons: slices.Concat(worse("executables", 33, "pcr11", "ak_public"), worse("hardware", 97, "ak_public")),
	},
	measure.CCA: {
		policy: DefaultCPU, root: lab.RootName,
		values: map[string]string{
			"cca_realm_initial_measurement": "realm.cca-realm-initial-measurement", "cca_platform_implementation_id": "platform.cca-platform-implementation-id",
			"cca_platform_sw_components": "platform.cca-platform-sw-components.*.measurement-value", "cca_platform_config": "platform.cca-platform-config",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 3},
		reasons: slices.Concat(
			worse("executables", 33, "realm.cca-realm-initial-measurement"),
			worse("hardware", 97, "platform.cca-platform-implementation-id", "platform.cca-platform-sw-components.1.measurement-value"),
			worse("configuration", 36, "platform.cca-platform-lifecycle-state"),
			[]reason{{"platform.cca-platform-lifecycle-state", "recoverable-cca-platform-rot-debug", "configuration", 36, nil}},
		),
	},
	measure.NVIDIA: {
		policy: "default_gpu", root: lab.RootName,
		values: map[string]string{
			"gpu_revocation": "revocation", "allowed_driver_versions": "config.driver_version", "allowed_vbios_versions": "config.vbios_version",
		},
		good: [3]int8{3, 2, 2}, blank: [3]int8{3, 97, 36},
		reasons: slices.Concat(
			worse("executables", 33, "measres"), []reason{{"measres", "fail", "executables", 33, nil}, {"measres", "absent", "executables", 33, nil}},
			worse("hardware", 97, "revocation"), worse("configuration", 36, "config.driver_version", "config.vbios_version"),
		),
	},
	measure.Sample: {
		policy: DefaultCPU, root: "sample",
		values: map[string]string{"svn": "svn", "launch_digest": "launch_digest", "major_version": "platform_version.major"},
		least:  map[string]string{"minimum_minor_version": "platform_version.minor"},
		good:   [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 2},
		reasons: slices.Concat(
			worse("executables", 33, "launch_digest"), worse("hardware", 97, "svn", "platform_version.major"),
			[]reason{
				{"svn", 1, "hardware", 97, nil},
				{"platform_version.minor", 3, "hardware", 97, []string{">= 4"}}, {"platform_version.minor", "9", "hardware", 97, []string{">= 4"}},
				{"debug", true, "configuration", 36, nil},
			},
		),
	},
	measure.SampleDevice: {
		policy: "default_gpu", root: "sample", values: map[string]string{"sampledevice_svn": "svn"},
		good: [3]int8{3, 2, 2}, blank: [3]int8{33, 97, 36},
		reasons: worse("hardware", 97, "svn"),
	},
}

// appraisal is the input that the broker makes of a verdict (kbs-protocol 9.2).
func appraisal(t testing.TB, p measure.Platform, change func(claims map[string]any)) json.RawMessage {
	t.Helper()
	claims := claimsOf(t, p)
	input := map[string]any{string(p): claims, "report_data": claims["report_data"], "init_data": claims["init_data"], "init_data_claims": nil}
	delete(claims, "report_data")
	delete(claims, "init_data")
	if change != nil {
		change(claims)
	}
	raw, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

var verdicts = map[measure.Platform][]byte{} // claims in JSON

// claimsOf returns what the verifier of a platform says of its simulator's
// evidence.
func claimsOf(t testing.TB, p measure.Platform) map[string]any {
	t.Helper()
	if verdicts[p] == nil {
		l, err := lab.Open(p, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		all, err := l.Verdicts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		claims := maps.Clone(all[0].Claims)
		claims["simulated_root"] = all[0].Root.Name
		if verdicts[p], err = json.Marshal(claims); err != nil {
			t.Fatal(err)
		}
	}
	var out map[string]any
	if err := json.Unmarshal(verdicts[p], &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// place calls f with the value at a path, in whatever holds it, and with a
// function that puts another there (nil takes it away).
func place(at any, path string, f func(value any, put func(any))) bool {
	key, rest, deeper := strings.Cut(path, ".")
	switch in := at.(type) {
	case map[string]any:
		if _, whole := in[path]; whole {
			key, deeper = path, false // a key with a dot
		}
		value, ok := in[key]
		if !ok || deeper {
			return ok && place(value, rest, f)
		}
		f(value, func(v any) {
			if in[key] = v; v == nil {
				delete(in, key)
			}
		})
		return true
	case []any:
		found := false
		for i := range in {
			if key == "*" || key == strconv.Itoa(i) {
				found = place(in[i], rest, f) || found
			}
		}
		return found
	}
	return false
}

// valuesAt lists what is at a path; the verifier must have put something there.
func valuesAt(t testing.TB, claims map[string]any, path string) (out []any) {
	t.Helper()
	if !place(claims, path, func(v any, _ func(any)) { out = append(out, v) }) {
		t.Fatalf("the verifier makes no claim %s", path)
	}
	return out
}

// register stores the reference values that know the guest.
func (c labCase) register(t testing.TB, b *bench, claims map[string]any) {
	t.Helper()
	for name, path := range c.values {
		raw, err := json.Marshal(valuesAt(t, claims, path))
		if err != nil {
			t.Fatal(err)
		}
		b.value(t, name, string(raw))
	}
	for name, path := range c.least {
		b.value(t, name, fmt.Sprint(valuesAt(t, claims, path)[0]))
	}
}

// wanted is what a finding must say that a claim should have been.
func (c labCase) wanted(t testing.TB, claims map[string]any, r reason) []string {
	t.Helper()
	if r.wanted != nil {
		return r.wanted
	}
	path := r.claim
	for _, p := range c.values {
		if strings.Contains(p, ".*.") && strings.HasSuffix(path, p[strings.LastIndex(p, ".*.")+2:]) {
			path = p
		}
	}
	var out []string
	for _, v := range valuesAt(t, claims, path) {
		out = append(out, render(v))
	}
	return out
}

// The defaults over claims that the verifiers of this project really make, for
// every platform that is verified.
func TestDefaultsOverRealClaims(t *testing.T) {
	for _, p := range lab.Platforms() {
		t.Run(string(p), func(t *testing.T) {
			c, ok := labCases[p]
			if !ok {
				t.Fatal("the platform is verified, and no default was tried on it")
			}
			c.try(t, p)
		})
	}
}

func (c labCase) try(t *testing.T, p measure.Platform) {
	b, claims := newBench(t), claimsOf(t, p)
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
	c.register(t, b, claims)
	simulated := reason{"simulated_root", c.root, "hardware", 97, []string{}}
	if v := appraise(appraisal(t, p, nil)); v["hardware"] != 97 || v.Status() == token.Affirming {
		t.Errorf("the shipped text accepts a simulated root: %v", v)
	}
	b.explained(t, platformCase{policy: c.policy}, simulated, appraisal(t, p, nil))

	b.put(t, Attestation, c.policy, accepting(c.policy, c.root))
	good := appraise(appraisal(t, p, nil))
	if aspects(good) != c.good || good.Status() != token.Affirming {
		t.Fatalf("good evidence: %v, want %v", aspects(good), c.good)
	}
	if x, err := b.engine.ExplainAppraisal(t.Context(), c.policy, appraisal(t, p, nil)); err != nil || len(x.Findings) != 0 {
		t.Errorf("good evidence is explained: %+v, %v", x, err)
	}
	for _, r := range append(c.reasons, reason{"simulated_root", "another", "hardware", 97, []string{c.root}}) {
		r.wanted = c.wanted(t, claims, r)
		input := appraisal(t, p, func(claims map[string]any) { place(claims, r.claim, func(_ any, put func(any)) { put(r.value) }) })
		if v := appraise(input); v[r.aspect] != r.result || v.Status() == token.Affirming {
			t.Errorf("%s = %v: %s is %d, want %d", r.claim, r.value, r.aspect, v[r.aspect], r.result)
		}
		b.explained(t, platformCase{policy: c.policy}, r, input)
	}
	c.tryWithoutValues(t, b, p)
}

// tryWithoutValues tries a broker that lacks a single reference value, since
// each of them counts, and one that has none.
func (c labCase) tryWithoutValues(t *testing.T, b *bench, p measure.Platform) {
	t.Helper()
	appraise := func() [3]int8 {
		t.Helper()
		a, err := b.engine.Appraise(t.Context(), c.policy, appraisal(t, p, nil))
		if err != nil {
			t.Fatal(err)
		}
		return aspects(a.Vector)
	}
	claims := claimsOf(t, p)
	names := slices.Concat(slices.Collect(maps.Keys(c.values)), slices.Collect(maps.Keys(c.least)))
	for _, missing := range names {
		if err := b.refs.Delete(t.Context(), missing); err != nil {
			t.Fatal(err)
		}
		if got := appraise(); got == c.good {
			t.Errorf("the reference value %s does not count: %v", missing, got)
		}
		c.register(t, b, claims)
	}
	if got := appraise(); got != c.good {
		t.Errorf("with all reference values again: %v, want %v", got, c.good)
	}
	for _, name := range names {
		if err := b.refs.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if got := appraise(); got != c.blank {
		t.Errorf("without reference values: %v, want %v", got, c.blank)
	}
}

// accepting is a shipped policy with a simulated root in it.
func accepting(id, root string) string {
	return strings.Replace(textOf(id), "accepted_simulated_roots := set()", fmt.Sprintf("accepted_simulated_roots := {%q}", root), 1)
}

// A TPM may be recognised by why its key is trusted, in place of the key.
func TestTPMByItsAuthority(t *testing.T) {
	b, c := newBench(t), labCases[measure.TPM]
	b.put(t, Attestation, c.policy, accepting(c.policy, c.root))
	labCase{values: map[string]string{"tpm_pcr11": "pcr11", "tpm_ak_trust": "ak_trust"}}.register(t, b, claimsOf(t, measure.TPM))
	for trust, want := range map[string][3]int8{"certified": {3, 2, 0}, "enrolled": {33, 97, 0}, "self-declared": {33, 97, 0}, "none": {33, 97, 0}} {
		input := appraisal(t, measure.TPM, func(claims map[string]any) { claims["ak_trust"] = trust })
		if a, err := b.engine.Appraise(t.Context(), c.policy, input); err != nil || aspects(a.Vector) != want {
			t.Errorf("%s: %v, %v", trust, a.Vector, err)
		}
	}
}

// A platform that names no firmware has none that is known.
func TestCCAWithoutFirmware(t *testing.T) {
	b, c := newBench(t), labCases[measure.CCA]
	b.put(t, Attestation, c.policy, accepting(c.policy, c.root))
	c.register(t, b, claimsOf(t, measure.CCA))
	for name, list := range map[string]any{"none": []any{}, "null": nil} {
		input := appraisal(t, measure.CCA, func(claims map[string]any) {
			place(claims, "platform.cca-platform-sw-components", func(_ any, put func(any)) { put(list) })
		})
		if a, err := b.engine.Appraise(t.Context(), c.policy, input); err != nil || a.Vector["hardware"] != 97 {
			t.Errorf("%s: %v, %v", name, a.Vector, err)
		}
	}
}

// A kernel that is not in the event log leaves the RTMRs, which are enough for
// the lesser affirmation.
func TestTDXWithoutAKnownKernel(t *testing.T) {
	b, c := newBench(t), labCases[measure.TDX]
	b.put(t, Attestation, c.policy, accepting(c.policy, c.root))
	c.register(t, b, claimsOf(t, measure.TDX))
	for name, change := range map[string]func(log []any) []any{
		"no log":         func([]any) []any { return nil },
		"no kernel":      func(log []any) []any { return log[2:] },
		"no parameters":  func(log []any) []any { return log[:2] },
		"another kernel": func(log []any) []any { return altered(log, "1.digests.0.digest") },
		"another file":   func(log []any) []any { return altered(log, "1.details.device_paths.0") },
		"other options":  func(log []any) []any { return altered(log, "2.digests.0.digest") },
		"another tag":    func(log []any) []any { return altered(log, "2.details.string") },
		"another type":   func(log []any) []any { return altered(log, "2.type_name") },
	} {
		input := appraisal(t, measure.TDX, func(claims map[string]any) { claims["uefi_event_logs"] = change(claims["uefi_event_logs"].([]any)) })
		a, err := b.engine.Appraise(t.Context(), DefaultCPU, input)
		if err != nil || aspects(a.Vector) != [3]int8{4, 2, 2} {
			t.Errorf("%s: %v, %v", name, a.Vector, err)
		}
	}
}

// altered changes one text of a log, which must be there.
func altered(log []any, path string) []any {
	holder, last := path[:strings.LastIndex(path, ".")], path[strings.LastIndex(path, ".")+1:]
	if list, ok := at(log, holder).([]any); ok {
		i, err := strconv.Atoi(last)
		if err != nil || i >= len(list) {
			panic(path)
		}
		list[i] = "something else"
		return log
	}
	if !place(log, path, func(_ any, put func(any)) { put("something else") }) {
		panic(path)
	}
	return log
}

func at(in any, path string) (out any) {
	place(in, path, func(v any, _ func(any)) { out = v })
	return out
}
