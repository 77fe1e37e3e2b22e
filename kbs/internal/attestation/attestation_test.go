package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

func document(t testing.TB, data string) *initdata.Document {
	t.Helper()
	doc, err := initdata.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n" + data))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// kbs-protocol 9.4.
func TestInitDataClaims(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"empty":                  {"", `{}`},
		"toml":                   {"\"aa.toml\" = '''\n[token_configs.kbs]\nurl = \"x\"\n'''\n", `{"aa.toml":{"token_configs":{"kbs":{"url":"x"}}}}`},
		"bad toml":               {`"cdh.toml" = "["`, `{"cdh.toml":"["}`},
		"not for json":           {`"cdh.toml" = "x = nan"`, `{"cdh.toml":"x = nan"}`},
		"other":                  {`"foo" = "x = 1"`, `{"foo":"x = 1"}`},
		"policy":                 {"\"policy.rego\" = '''\npackage agent_policy\npolicy_data := {\"containers\": []}\n'''\n", `{"agent_policy_claims":{"containers":[]}}`},
		"policy without data":    {`"policy.rego" = "package agent_policy"`, `{"policy.rego":"package agent_policy"}`},
		"policy with more after": {`"policy.rego" = "policy_data := {}\nx := 1"`, `{"policy.rego":"policy_data := {}\nx := 1"}`},
		"policy with two faces":  {`"policy.rego" = 'policy_data := {"a":1,"a":2}'`, `{"policy.rego":"policy_data := {\"a\":1,\"a\":2}"}`},
	} {
		raw, err := json.Marshal(initDataClaims(document(t, c.data)))
		if err != nil || string(raw) != c.want {
			t.Errorf("%s: %s, %v", name, raw, err)
		}
	}
}

func FuzzInitDataClaims(f *testing.F) {
	f.Add("x = 1", "policy_data := {\"a\": [1]}")
	f.Add("[", "policy_data := {")
	f.Fuzz(func(t *testing.T, aa, rego string) {
		if raw, ok := tomlObject(aa); ok && !json.Valid(raw) {
			t.Fatalf("%q became %q", aa, raw)
		}
		if raw, ok := agentPolicyData(rego); ok && !json.Valid(raw) {
			t.Fatalf("%q became %q", rego, raw)
		}
	})
}

func attestationOf(init *api.InitData) api.Attestation {
	return api.Attestation{InitData: init, RuntimeData: api.RuntimeData{
		Nonce: "n", TEEPubKey: api.JWK{Kty: "EC", Crv: "P-256", Alg: "ECDH-ES+A256KW", X: "x", Y: "y", N: "dropped"},
	}}
}

func runtime(t *testing.T, verbose bool) map[string]any {
	t.Helper()
	s := &Service{cfg: Config{VerboseTokens: verbose}}
	out, err := s.runtimeClaims(attestationOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// verbose_token adds what the devices sent, and nothing else.
func TestVerboseTokens(t *testing.T) {
	short, long := runtime(t, false), runtime(t, true)
	if _, ok := short[memberDevices]; ok || len(long) != len(short)+1 || long[memberDevices] != "" {
		t.Errorf("%v and %v", short, long)
	}
}

// kbs-protocol 9.2 and 10: what policies see, and what the token carries.
func TestAnnotated(t *testing.T) {
	v := measure.Verdict{Platform: measure.SNP, Class: "cpu", Claims: measure.Claims{
		"measurement": "aa", "report_data": "bb", "init_data": "cc", "reported_tcb_snp": json.Number("23"), "simulated_root": "a lie",
	}}
	const key = `"runtime_data_claims":{"nonce":"n","tee-pubkey":{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"x","y":"y"}}`
	for name, c := range map[string]struct {
		doc  *initdata.Document
		root measure.Root
		want string
	}{
		"without init-data": {nil, measure.Root{Name: "AMD"}, `{"init_data":"cc","init_data_claims":null,"report_data":"bb",` + key + `,"snp":{"measurement":"aa","reported_tcb_snp":23}}`},
		"with init-data":    {document(t, `"foo" = "bar"`), measure.Root{Name: "AMD"}, `{"init_data":"cc","init_data_claims":{"foo":"bar"},"report_data":"bb",` + key + `,"snp":{"measurement":"aa","reported_tcb_snp":23}}`},
		"simulated":         {nil, measure.Root{Name: "lab", Simulated: true}, `{"init_data":"cc","init_data_claims":null,"report_data":"bb",` + key + `,"snp":{"measurement":"aa","reported_tcb_snp":23,"simulated_root":"lab"}}`},
	} {
		v.Root = c.root
		out, err := Annotated(runtime(t, false), c.doc, v)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(out)
		if err != nil || string(raw) != c.want {
			t.Errorf("%s:\n%s\nwant\n%s\n%v", name, raw, c.want, err)
		}
	}
	if v.Claims["report_data"] == nil {
		t.Error("the verdict was changed")
	}
	delete(v.Claims, "report_data")
	if _, err := Annotated(runtime(t, false), nil, v); err == nil {
		t.Error("evidence without report data is bound to nothing")
	}
}

func TestVerificationFaults(t *testing.T) {
	failed := func(checks ...measure.Check) error {
		return &measure.VerificationError{Platform: measure.SNP, Failed: checks}
	}
	check := func(n measure.CheckName) measure.Check { return measure.Check{Name: n, Outcome: measure.Failed} }
	root := measure.Check{Name: measure.CheckChain, Findings: []measure.Finding{{Field: measure.FieldRoot}}}
	for name, c := range map[string]struct {
		err  error
		want fault.Code
	}{
		"not parsed":           {errors.New("x"), fault.EvidenceInvalid},
		"caller gone":          {context.Canceled, fault.Unavailable},
		"signature":            {failed(check(measure.CheckSignature)), fault.EvidenceInvalid},
		"root":                 {failed(root), fault.RootUntrusted},
		"root and revocation":  {failed(root, check(measure.CheckRevocation)), fault.RootUntrusted},
		"broken chain":         {failed(check(measure.CheckChain)), fault.EvidenceInvalid},
		"revocation":           {failed(check(measure.CheckRevocation)), fault.EvidenceInvalid},
		"binding":              {failed(check(measure.CheckBinding)), fault.BindingMismatch},
		"init-data":            {failed(check(measure.CheckInitData)), fault.InitDataMismatch},
		"binding and initdata": {failed(check(measure.CheckInitData), check(measure.CheckBinding)), fault.BindingMismatch},
		"binding and tcb":      {failed(check(measure.CheckBinding), check(measure.CheckTCB)), fault.EvidenceInvalid},
		"nothing listed":       {failed(), fault.EvidenceInvalid},
	} {
		if got := verificationFault(c.err); got.Code != c.want {
			t.Errorf("%s: %s, want %s", name, got.Code, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"snp": "snp", "azsnpvtpm": "az-snp-vtpm", "nvidiadpu": "nvidia-dpu", "sample": "sample", "SNP": "", "sev": "", "": ""} {
		if got := canonicalTEE(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	c := token.Claims{Submods: map[string]token.AppraisalClaims{token.CPU: {Evidence: json.RawMessage(`{"report_data":"x","snp":{}}`)}}}
	if Platform(c) != "snp" || Platform(token.Claims{}) != "" {
		t.Errorf("platform %q", Platform(c))
	}
}
