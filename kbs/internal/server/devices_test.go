package server_test

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/sample"
)

const devicePolicy = `package policy

trust_claims := {"hardware": 2, "executables": 3} if input.sampledevice.svn == "2"
`

// accept puts the shipped policies in force with these simulated roots in them.
func (s *stage) accept(roots ...string) {
	s.t.Helper()
	set, err := json.Marshal(roots)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range policy.Defaults() {
		text := strings.Replace(p.Rego, "accepted_simulated_roots := set()", "accepted_simulated_roots := {"+strings.Trim(string(set), "[]")+"}", 1)
		s.putPolicy(p.Kind, p.ID, text)
	}
}

func (s *stage) putPolicy(kind, id, text string) {
	s.t.Helper()
	s.putJSON(api.PathPolicies+"/"+kind+"/"+id, api.Policy{Version: -1, Rego: text})
}

// sampleStage believes samples too.
func sampleStage(t testing.TB) *stage {
	t.Helper()
	s := newStage(t)
	s.know()
	s.restartWith(func(c *config.Config) {
		c.Verifier.Sample.InsecureEnabled = true
		c.AttestationService.AttestationPolicySelectors = map[string]string{"strict": "harsh"}
	})
	return s
}

func attester(t testing.TB, p measure.Platform) measure.Attester {
	t.Helper()
	a, err := sample.NewAttester(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// clientOf is the project's client with a change of its configuration.
func (s *stage) clientOf(a measure.Attester, change func(*client.Config)) *client.Client {
	s.t.Helper()
	cfg := client.Config{
		URL: s.guestURL, RootCAs: s.roots, Attester: a, Now: s.clock.now,
		InitData: &api.InitData{Format: "toml", Body: initDataText},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// submods are those of a token, read as a relying party reads them.
func submods(t testing.TB, text string) map[string]map[string]json.RawMessage {
	t.Helper()
	parts := strings.Split(text, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Submods map[string]map[string]json.RawMessage `json:"submods"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	return p.Submods
}

// One token speaks of the CPU and of its device, each under the policy of its
// class (kbs-protocol 10), and a resource is released only if both are good.
func TestDevices(t *testing.T) {
	s := sampleStage(t)
	s.accept("lab")
	s.putPolicy("attestation", "default_gpu", devicePolicy)
	withDevice := func(c *client.Config) { c.Devices = []measure.Attester{attester(t, measure.SampleDevice)} }
	c := s.clientOf(guest(t, "lab", "agent 1"), withDevice)
	tok, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	subs := submods(t, string(tok.JWT.Reveal()))
	if len(subs) != 2 || string(subs["cpu0"]["ear.status"]) != `"affirming"` || string(subs["gpu0"]["ear.status"]) != `"affirming"` ||
		string(subs["gpu0"]["ear.vouchsafe.simulated-root"]) != `"sample"` || string(subs["gpu0"]["ear.appraisal-policy-id"]) != `"default"` {
		t.Errorf("submods %s", subs)
	}
	var evidence map[string]json.RawMessage
	if err := json.Unmarshal(subs["gpu0"]["ear.veraison.annotated-evidence"], &evidence); err != nil || evidence["sampledevice"] == nil || evidence["runtime_data_claims"] == nil {
		t.Errorf("evidence %s", evidence)
	}
	all := s.entries()
	e := all[len(all)-1]
	if e.Kind != api.AuditAttest || e.Details["gpu0_platform"] != "sampledevice" || e.Details["gpu0_simulated_root"] != "sample" ||
		e.Details["gpu0_waived_signature"] == "" || !strings.HasPrefix(e.Details["gpu0_policy"], "attestation/default_gpu@") {
		t.Errorf("entry %+v", e)
	}

	// The shipped resource policy looks at every submod, and at its root.
	_, err = c.Resource(t.Context(), "kbs:///"+resourcePath)
	if fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("a sample device: %v", err)
	}
	s.accept("lab", "sample")
	if got, err := c.Resource(t.Context(), "kbs:///"+resourcePath); err != nil || string(got.Reveal()) != s.value {
		t.Errorf("accepted by name: %v", err)
	}
	s.putPolicy("attestation", "default_gpu", "package policy\n\ntrust_claims := {\"hardware\": 97}\n")
	_, err = s.clientOf(guest(t, "lab", "agent 1"), withDevice).Resource(t.Context(), "kbs:///"+resourcePath)
	if fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("a device that is not affirming: %v", err)
	}
}

// A sample as the CPU: off by default, and denied by the shipped policies.
func TestSampleCPU(t *testing.T) {
	s := sampleStage(t)
	c := s.clientOf(attester(t, measure.Sample), nil)
	_, err := c.Resource(t.Context(), "kbs:///"+resourcePath)
	if fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("by the defaults: %v", err)
	}
	s.accept("sample")
	for name, value := range map[string]string{"launch_digest": `["abcde"]`, "svn": `["1"]`, "major_version": `1`, "minimum_minor_version": `4`} {
		s.putJSON(api.PathRefValues+"/"+name, api.RefValue{Version: -1, Value: json.RawMessage(value)})
	}
	if got, err := s.clientOf(attester(t, measure.Sample), nil).Resource(t.Context(), "kbs:///"+resourcePath); err != nil || string(got.Reveal()) != s.value {
		t.Errorf("with everything known: %v", err)
	}
	if !strings.Contains(strings.Join(waivers(s), " "), "verifier.sample.insecure_enabled") {
		t.Error("the waiver is not in the log")
	}
	_, err = s.clientOf(attester(t, measure.SampleDevice), nil).Token(t.Context())
	if fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a device alone: %v", err)
	}
}

func waivers(s *stage) []string {
	var out []string
	for _, e := range s.entries() {
		out = append(out, e.Details["insecure"])
	}
	return out
}

// Everything that additional evidence can be wrong in costs the whole token.
func TestDevicesRefused(t *testing.T) {
	s := sampleStage(t)
	s.accept("lab", "sample")
	s.must(http.MethodDelete, api.PathPolicies+"/attestation/default_gpu", nil)
	sim := guest(t, "lab", "agent 1")
	device := attester(t, measure.SampleDevice)
	// over builds an answer whose CPU evidence binds the text.
	over := func(h *handshake, text string) api.Attestation {
		m := h.message(h.nonce)
		digest, err := rcar.PrimaryDigest(crypto.SHA384, m.RuntimeData, text)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := measure.EvidenceOver(t.Context(), sim, digest)
		if err != nil {
			t.Fatal(err)
		}
		m.TEEEvidence = api.TEEEvidence{PrimaryEvidence: ev.Data, AdditionalEvidence: text}
		return m
	}
	text := func(rd api.RuntimeData, name string) string {
		digest, err := rcar.DeviceDigest(crypto.SHA384, rd)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := measure.EvidenceOver(t.Context(), device, digest)
		if err != nil {
			t.Fatal(err)
		}
		return `{"` + name + `":` + string(ev.Data) + `}`
	}
	good := func(h *handshake) string { return text(h.message(h.nonce).RuntimeData, "sampledevice") }
	for name, c := range map[string]struct {
		do   func(h *handshake) api.Attestation
		code fault.Code
	}{
		"no policy for its class": {func(h *handshake) api.Attestation { return over(h, good(h)) }, fault.PolicyError},
		"device evidence removed": {func(h *handshake) api.Attestation {
			m := over(h, good(h))
			m.TEEEvidence.AdditionalEvidence = ""
			return m
		}, fault.BindingMismatch},
		"device evidence added": {func(h *handshake) api.Attestation {
			m := h.message(h.nonce)
			m.TEEEvidence.AdditionalEvidence = good(h)
			return m
		}, fault.BindingMismatch},
		"one space more": {func(h *handshake) api.Attestation {
			m := over(h, good(h))
			m.TEEEvidence.AdditionalEvidence += " "
			return m
		}, fault.BindingMismatch},
		"device bound to another nonce": {func(h *handshake) api.Attestation {
			rd := h.message(h.nonce).RuntimeData
			rd.Nonce = "another"
			return over(h, text(rd, "sampledevice"))
		}, fault.BindingMismatch},
		"device bound to another key": {func(h *handshake) api.Attestation {
			rd := h.message(h.nonce).RuntimeData
			thief, err := jwe.Generate("")
			if err != nil {
				t.Fatal(err)
			}
			rd.TEEPubKey = thief.JWK()
			return over(h, text(rd, "sampledevice"))
		}, fault.BindingMismatch},
		"a platform that is off": {func(h *handshake) api.Attestation { return over(h, text(h.message(h.nonce).RuntimeData, "nvidia")) }, fault.PlatformDisabled},
		"an unknown platform":    {func(h *handshake) api.Attestation { return over(h, `{"gpu":{}}`) }, fault.InvalidRequest},
		"the CPU as its device":  {func(h *handshake) api.Attestation { return over(h, `{"snp":{}}`) }, fault.InvalidRequest},
		"no object":              {func(h *handshake) api.Attestation { return over(h, `[]`) }, fault.InvalidRequest},
		"empty object":           {func(h *handshake) api.Attestation { return over(h, `{}`) }, fault.InvalidRequest},
		"evidence that does not parse": {func(h *handshake) api.Attestation {
			return over(h, `{"sampledevice":{"svn":1}}`)
		}, fault.EvidenceInvalid},
	} {
		h := s.auth(sim)
		a := h.attest(c.do(h))
		if e := a.info(t); a.status != c.code.Status() || e.Code != string(c.code) || bytes.Contains(a.body, []byte("token\":")) {
			t.Errorf("%s: %d %s; %+v", name, a.status, a.body, s.explain(e.Ticket))
		}
		if again := h.attest(h.message(h.nonce)); again.status != http.StatusUnauthorized {
			t.Errorf("%s: the challenge is good for another answer: %d", name, again.status)
		}
	}
}

// A guest asks for a policy by the name that the administrator gave it, and the
// token tells which one judged (kbs-protocol 3.9).
func TestPolicySelector(t *testing.T) {
	s := sampleStage(t)
	s.accept("lab")
	s.putPolicy("attestation", "harsh_cpu", "package policy\n\ntrust_claims := {\"hardware\": 97}\n")
	sim := guest(t, "lab", "agent 1")
	for selector, want := range map[string]struct{ id, status string }{"": {"default", "affirming"}, "default": {"default", "affirming"}, "strict": {"harsh", "contraindicated"}} {
		tok, err := s.clientOf(sim, func(c *client.Config) { c.PolicySelector = selector }).Token(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", selector, err)
		}
		cpu := submods(t, string(tok.JWT.Reveal()))["cpu0"]
		if string(cpu["ear.appraisal-policy-id"]) != `"`+want.id+`"` || string(cpu["ear.status"]) != `"`+want.status+`"` {
			t.Errorf("%q: %s %s", selector, cpu["ear.appraisal-policy-id"], cpu["ear.status"])
		}
	}
	_, err := s.clientOf(sim, func(c *client.Config) { c.PolicySelector = "harsh" }).Token(t.Context())
	if fault.CodeOf(err) != fault.SelectorUnknown {
		t.Errorf("the id is not the name: %v", err)
	}
	for _, spelling := range []string{"attestation-policy-selector", "policy-selector", "id"} {
		a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":{"`+spelling+`":"strict"}}`))
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", spelling, a.status, a.body)
		}
	}
	// A denial is explained by the policy that judged.
	_, err = s.clientOf(sim, func(c *client.Config) { c.PolicySelector = "strict" }).Resource(t.Context(), "kbs:///"+resourcePath)
	f, ok := err.(*fault.Fault) //nolint:errorlint // the very fault that the client returns
	if !ok || f.Code != fault.PolicyDenied {
		t.Fatalf("%v", err)
	}
	if x := s.explain(string(f.Ticket)); !strings.HasPrefix(x.Policy, "attestation/harsh_cpu@") {
		t.Errorf("explained by %s", x.Policy)
	}
}

// Each key that a guest may choose opens what the broker sends, the
// post-quantum ones among them, and the hash is the broker's choice.
func TestGuestKeys(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	for name, change := range map[string]func(*client.Config){
		"P-256":        nil,
		"P-384":        func(c *client.Config) { c.KeyAlgorithm = jwe.KeyP384 },
		"P-521":        func(c *client.Config) { c.KeyAlgorithm = jwe.KeyP521 },
		"RSA":          func(c *client.Config) { c.KeyAlgorithm = jwe.KeyRSA },
		"ML-KEM":       func(c *client.Config) { c.KeyAlgorithm = jwe.KeyMLKEM },
		"post-quantum": func(c *client.Config) { c.PostQuantum = true },
	} {
		c := s.clientOf(sim, change)
		if got, err := c.Resource(t.Context(), "kbs:///"+resourcePath); err != nil || string(got.Reveal()) != s.value {
			t.Errorf("%s: %v", name, err)
		}
		kem := name == "ML-KEM" || name == "post-quantum"
		if _, err := c.TokenWithKey(t.Context()); (fault.CodeOf(err) == fault.InvalidRequest) != kem && err != nil || kem && err == nil {
			t.Errorf("%s: the key is handed on: %v", name, err)
		}
	}
	h := s.auth(sim)
	a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha512"]}}`))
	var c api.Challenge
	if err := json.Unmarshal(a.body, &c); err != nil {
		t.Fatal(err)
	}
	h.nonce = c.Nonce
	h.cookie, _, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
	if a := h.attest(h.message(h.nonce)); a.info(t).Code != string(fault.BindingMismatch) {
		t.Errorf("SHA-384 where SHA-512 was selected: %d %s", a.status, a.body)
	}
}
