package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Every way in which an answer to a challenge can be wrong, its code, and a
// claim that its ticket names.
func TestAttestRefused(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	for name, c := range map[string]struct {
		do    func(t *testing.T) answer
		code  fault.Code
		claim string
	}{
		"cookie of an attested session, body malformed": {func(*testing.T) answer {
			h := s.auth(sim)
			h.token()
			return h.attestRaw([]byte(`{`))
		}, fault.InvalidRequest, ""},
		"challenge answered again after a failure": {func(t *testing.T) answer {
			h := s.auth(sim)
			if a := h.attest(h.message("another")); a.status == http.StatusOK {
				t.Fatal("a wrong nonce was accepted")
			}
			return h.attest(h.message(h.nonce))
		}, fault.SessionInvalid, ""},
		"malformed answer spends the challenge": {func(*testing.T) answer {
			h := s.auth(sim)
			h.attestRaw([]byte(`{`))
			return h.attest(h.message(h.nonce))
		}, fault.SessionInvalid, ""},
		"replayed answer in a new session": {func(*testing.T) answer {
			first, second := s.auth(sim), s.auth(sim)
			m := first.message(first.nonce)
			first.attest(m)
			return second.attest(m)
		}, fault.NonceMismatch, ""},
		"replayed evidence under the right nonce": {func(*testing.T) answer {
			first, second := s.auth(sim), s.auth(sim)
			m := first.message(first.nonce)
			m.RuntimeData.Nonce = second.nonce
			return second.attest(m)
		}, fault.BindingMismatch, "report_data"},
		"another key": {func(t *testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			thief, err := jwe.Generate("")
			if err != nil {
				t.Fatal(err)
			}
			m.RuntimeData.TEEPubKey = thief.JWK()
			return h.attest(m)
		}, fault.BindingMismatch, "report_data"},
		"another's cookie": {func(*testing.T) answer {
			victim, thief := s.auth(sim), s.auth(guest(t, "lab", "agent 2"))
			m := thief.message(thief.nonce)
			thief.cookie = victim.cookie
			return thief.attest(m)
		}, fault.NonceMismatch, ""},
		"unknown cookie": {func(*testing.T) answer {
			h := s.auth(sim)
			h.cookie = api.SessionCookie + "=00112233445566778899aabbccddeeff"
			return h.attest(h.message(h.nonce))
		}, fault.SessionInvalid, ""},
		"hostile cookie": {func(*testing.T) answer {
			h := s.auth(sim)
			h.cookie = api.SessionCookie + "=../policy/x"
			return h.attest(h.message(h.nonce))
		}, fault.SessionInvalid, ""},
		"no cookie": {func(*testing.T) answer {
			h := s.auth(sim)
			h.cookie = "other=1"
			return h.attest(h.message(h.nonce))
		}, fault.SessionInvalid, ""},
		"untrusted simulated root": {func(t *testing.T) answer {
			h := s.auth(guest(t, "stranger", "agent 1"))
			return h.attest(h.message(h.nonce))
		}, fault.RootUntrusted, "root"},
		"tampered init-data": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.InitData.Body += "# harmless comment\n"
			return h.attest(m)
		}, fault.InitDataMismatch, "init_data"},
		"init-data that does not parse": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.InitData.Body = "version = 1"
			return h.attest(m)
		}, fault.InvalidRequest, ""},
		"init-data of another format": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.InitData.Format = "json"
			return h.attest(m)
		}, fault.InvalidRequest, ""},
		"changed measurement in the report": {func(t *testing.T) answer {
			h := s.auth(guest(t, "lab", "agent 2"))
			m := h.message(h.nonce)
			m.TEEEvidence.PrimaryEvidence = graft(t, m.TEEEvidence.PrimaryEvidence, s.auth(sim).message("x").TEEEvidence.PrimaryEvidence)
			return h.attest(m)
		}, fault.EvidenceInvalid, "signature"},
		"no evidence": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.TEEEvidence.PrimaryEvidence = json.RawMessage(`{}`)
			return h.attest(m)
		}, fault.EvidenceInvalid, ""},
		"devices": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.TEEEvidence.AdditionalEvidence = `{"nvidia":{}}`
			return h.attest(m)
		}, fault.PlatformDisabled, ""},
		"key without members": {func(*testing.T) answer {
			h := s.auth(sim)
			m := h.message(h.nonce)
			m.RuntimeData.TEEPubKey.X = ""
			return h.attest(m)
		}, fault.InvalidRequest, ""},
		"duplicate member": {func(t *testing.T) answer {
			h := s.auth(sim)
			raw, err := json.Marshal(h.message(h.nonce))
			if err != nil {
				t.Fatal(err)
			}
			return h.attestRaw(bytes.Replace(raw, []byte(`"nonce":`), []byte(`"nonce":"x","nonce":`), 1))
		}, fault.InvalidRequest, ""},
		"duplicate member in other case": {func(t *testing.T) answer {
			h := s.auth(sim)
			raw, err := json.Marshal(h.message(h.nonce))
			if err != nil {
				t.Fatal(err)
			}
			return h.attestRaw(bytes.Replace(raw, []byte(`"nonce":`), []byte(`"Nonce":"x","nonce":`), 1))
		}, fault.InvalidRequest, ""},
		"wrong types": {func(*testing.T) answer {
			return s.auth(sim).attestRaw([]byte(`{"runtime-data":{"nonce":5},"tee-evidence":[]}`))
		}, fault.InvalidRequest, ""},
		"trailing data": {func(t *testing.T) answer {
			h := s.auth(sim)
			raw, err := json.Marshal(h.message(h.nonce))
			if err != nil {
				t.Fatal(err)
			}
			return h.attestRaw(append(raw, "{}"...))
		}, fault.InvalidRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.do(t)
			e := a.info(t)
			if a.status != c.code.Status() || e.Code != string(c.code) || e.Type != api.ErrorTypePrefix+"AttestationError" {
				x := s.explain(e.Ticket)
				t.Fatalf("%d %s; want %s; explained: %+v", a.status, a.body, c.code, x)
			}
			if strings.Contains(string(a.body), `"token"`) || a.header.Get("Set-Cookie") != "" {
				t.Errorf("a refusal gives something away: %s %v", a.body, a.header)
			}
			s.discreet(a.body)
			x := s.explain(e.Ticket)
			if x.Stage != "attest" || x.Cause == "" || s.entry(x).Decision != "deny" {
				t.Errorf("explanation %+v", x)
			}
			if c.claim != "" && !slices.ContainsFunc(x.Findings, func(f api.Finding) bool { return strings.Contains(f.Claim, c.claim) && f.Seen != "" }) {
				t.Errorf("findings %+v lack %s", x.Findings, c.claim)
			}
		})
	}
}

// graft puts the measurement of one report into another.
func graft(t *testing.T, into, from json.RawMessage) json.RawMessage {
	t.Helper()
	var a, b map[string]json.RawMessage
	var ra, rb map[string]json.RawMessage
	for _, x := range []struct {
		raw json.RawMessage
		to  *map[string]json.RawMessage
	}{{into, &a}, {from, &b}} {
		if err := json.Unmarshal(x.raw, x.to); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(json.Unmarshal(a["attestation_report"], &ra), json.Unmarshal(b["attestation_report"], &rb)); err != nil {
		t.Fatal(err)
	}
	ra["measurement"] = rb["measurement"]
	raw, err := json.Marshal(ra)
	if err != nil {
		t.Fatal(err)
	}
	a["attestation_report"] = raw
	if raw, err = json.Marshal(a); err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSessionExpires(t *testing.T) {
	s := newStage(t)
	h := s.auth(guest(t, "lab", "agent 1"))
	m := h.message(h.nonce)
	s.clock.advance(5*time.Minute + time.Second)
	a := h.attest(m)
	if e := a.info(t); a.status != http.StatusUnauthorized || e.Code != "session_invalid" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if x := s.explain(a.info(t).Ticket); !strings.Contains(x.Cause, "expired") {
		t.Errorf("explanation %+v", x)
	}
}

// What a handshake leaves in the store goes away, but not before every replica
// agrees that its time is over.
func TestSweep(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	sweep := func(want int) {
		t.Helper()
		if n, err := store.Sweep(t.Context(), s.b.Deps().Store, s.clock.now()); err != nil || n != want {
			t.Errorf("swept %d records, want %d: %v", n, want, err)
		}
	}
	s.auth(sim).token()
	s.auth(sim).attestRaw([]byte(`{`))
	s.auth(sim) // leaves nothing
	s.clock.advance(14 * time.Minute)
	sweep(0)
	s.auth(sim).token()
	s.clock.advance(2 * time.Minute)
	sweep(2)
	sweep(0)
}

// Who has a token gets the same one again (kbs-protocol 3.3).
func TestAnAttestedSessionKeepsItsToken(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	h := s.auth(guest(t, "lab", "agent 1"))
	first := h.token()
	entries := len(s.entries())
	if again := h.token(); again != first {
		t.Error("another token for one challenge")
	}
	a := h.attest(api.Attestation{TEEEvidence: api.TEEEvidence{PrimaryEvidence: json.RawMessage(`{}`)}})
	var r api.AttestResponse
	if err := json.Unmarshal(a.body, &r); err != nil || a.status != http.StatusOK || r.Token != first {
		t.Errorf("%d %s: %v", a.status, a.body, err)
	}
	if n := len(s.entries()); n != entries {
		t.Errorf("%d entries for one attestation", n-entries)
	}
}

// No token leaves before its attestation is in the log.
func TestNoTokenWithoutEntry(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	sim := guest(t, "lab", "agent 1")
	for name, recorder := range map[string]audit.Recorder{"sound": s.b.Deps().Audit, "deaf": deaf{}} {
		service := s.service(newRing(t, s.b.Deps().Store), labVerifier(t), recorder)
		h, cookie := s.openAt(service, sim)
		out, err := service.Attest(t.Context(), cookie, h.raw(h.message(h.nonce)))
		if name == "sound" && (err != nil || out.Token == "") {
			t.Fatalf("the honest case: %v", err)
		}
		if name == "deaf" && (fault.CodeOf(err) != fault.Internal || out.Token != "") {
			t.Errorf("%+v: %v", out, err)
		}
		if _, ok, err := service.Token(t.Context(), cookie); err != nil || ok != (name == "sound") {
			t.Errorf("%s: the session has a token: %v, %v", name, ok, err)
		}
	}
}

func TestAuthRefused(t *testing.T) {
	s := newStage(t)
	for name, c := range map[string]struct {
		body   string
		code   fault.Code
		detail string
	}{
		"old version":      {`{"version":"0.1.1","tee":"snp","extra-params":""}`, fault.VersionUnsupported, "KBS Client Protocol Version Mismatch: expect =0.4.0, =0.2.0 while the request is 0.1.1"},
		"never released":   {`{"version":"0.3.0","tee":"snp","extra-params":""}`, fault.VersionUnsupported, "KBS Client Protocol Version Mismatch"},
		"no version":       {`{"tee":"snp"}`, fault.VersionUnsupported, "KBS Client Protocol Version Mismatch"},
		"disabled":         {`{"version":"0.4.0","tee":"tdx","extra-params":""}`, fault.PlatformDisabled, ""},
		"sample":           {`{"version":"0.4.0","tee":"sample","extra-params":""}`, fault.PlatformDisabled, ""},
		"alias, disabled":  {`{"version":"0.4.0","tee":"azsnpvtpm","extra-params":""}`, fault.PlatformDisabled, ""},
		"unknown platform": {`{"version":"0.4.0","tee":"SNP","extra-params":""}`, fault.PlatformDisabled, ""},
		"unknown selector": {`{"version":"0.4.0","tee":"snp","extra-params":{"attestation-policy-selector":"other"}}`, fault.SelectorUnknown, ""},
		"two selectors":    {`{"version":"0.4.0","tee":"snp","extra-params":{"id":"default","policy-selector":"other"}}`, fault.InvalidRequest, ""},
		"only sm3":         {`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sm3"]}}`, fault.InvalidRequest, ""},
		"hashes no list":   {`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":"sha384"}}`, fault.InvalidRequest, ""},
		"malformed":        {`{"version":"0.4.0","tee":"snp"`, fault.InvalidRequest, ""},
		"duplicate":        {`{"version":"0.4.0","tee":"snp","tee":"snp"}`, fault.InvalidRequest, ""},
		"wrong type":       {`{"version":4,"tee":"snp"}`, fault.InvalidRequest, ""},
		"empty":            {``, fault.InvalidRequest, ""},
	} {
		a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(c.body))
		e := a.info(t)
		if a.status != c.code.Status() || e.Code != string(c.code) || !strings.Contains(e.Detail, c.detail) || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if c.code != fault.InvalidRequest {
			s.entry(s.explain(e.Ticket))
		}
	}
	for body, extra := range map[string]string{ // accepted, with what the challenge selects
		`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha256","SHA384"]}}`: `""`,
		`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha256","SHA512"]}}`: `{"selected-hash-algorithm":"sha512"}`,
		`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sm3","sha256"]}}`:    `{"selected-hash-algorithm":"sha256"}`,
		`{"version":"0.4.0","tee":"snp","extra-params":{"policy-selector":"default"}}`:                     `""`,
		`{"version":"0.2.0","tee":"snp","extra-params":""}`:                                                `""`,
		`{"version":"0.2.0","tee":"snp","extra-params":5}`:                                                 `""`,
	} {
		a := s.send(http.MethodPost, s.guestURL+api.PathAuth, []byte(body))
		var c api.Challenge
		if err := json.Unmarshal(a.body, &c); err != nil || a.status != http.StatusOK || string(c.ExtraParams) != extra {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

func TestLimits(t *testing.T) {
	s := newStage(t)
	big := bytes.Repeat([]byte("x"), 2<<20+1)
	for _, path := range []string{api.PathAuth, api.PathAttest} {
		a := s.send(http.MethodPost, s.guestURL+path, big)
		if a.status != http.StatusRequestEntityTooLarge || a.info(t).Code != "too_large" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	// A token of 170 KiB fits into the head (kbs-protocol 20), two megabytes do not.
	long := "Authorization: Bearer " + strings.Repeat("a", 170<<10)
	if a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, long); a.info(t).Code != "token_invalid" {
		t.Errorf("long token: %d %s", a.status, a.body)
	}
}

func TestPaths(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	text := s.auth(guest(t, "lab", "agent 1")).token()
	for path, want := range map[string]int{
		"/kbs/v0/resource/" + resourcePath:                       200,
		"/kbs/v0/resource/prod%2Fkeys/disk-1":                    200, // decoded first, then cut (kbs-protocol 2.1)
		"/kbs/v0/%72esource/prod/keys/disk%2d1":                  200,
		"/kbs/v0/resource/" + resourcePath + "?a=1&a=2&b":        200,
		"/kbs/v0/resource/" + resourcePath + "?a=%zz":            400,
		"/kbs/v0/resource/" + resourcePath + "?a;b":              400,
		"/kbs/v0/resource/prod/keys/../keys/disk-1":              400,
		"/kbs/v0/resource/prod/keys/%2e%2e/disk-1":               400,
		"/kbs/v0/resource/prod/keys/%252e%252e":                  400,
		"/kbs/v0/resource%2F..%2Fresource/" + resourcePath:       400,
		"/kbs/v0/resource/prod//keys/disk-1":                     400,
		"/kbs/v0//resource/prod/keys/disk-1":                     400,
		"/kbs/v0/resource/prod/keys%2Fdisk-1/x":                  400,
		"/kbs/v0/resource/prod/keys/..%2f..%2fpolicy":            400,
		"/kbs/v0/resource/prod/keys/%00":                         400,
		"/kbs/v0/resource/prod/keys/.hidden":                     400,
		"/kbs/v0/resource/prod/keys/a%5cb":                       400,
		"/kbs/v0/resource/prod/keys/" + strings.Repeat("a", 200): 400,
		"/kbs/v0/resource/prod/keys":                             400,
		"/kbs/v0/resource/prod/keys/disk-1/":                     400,
		"/kbs/v0/resource/prod/keys/disk-1/more":                 400,
		"/kbs/v0/nebula-ca/credential":                           404,
		"/kbs/v0/":                                               404,
		"/kbs/v0":                                                404,
		"/kbs/v0/auth":                                           404,
		"/kbs/v1/resource/prod/keys/disk-1":                      404,
		"/":                                                      404,
		"/metrics":                                               404,
	} {
		a := s.send(http.MethodGet, s.guestURL+path, nil, "Authorization: Bearer "+text)
		if a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a.status != 200 && a.info(t).Code == "" {
			t.Errorf("%s: no code in %s", path, a.body)
		}
	}
	before := len(s.entries())
	for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodOptions, http.MethodTrace} {
		a := s.send(method, s.guestURL+"/kbs/v0/resource/"+resourcePath, nil, "Authorization: Bearer "+text)
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
			t.Errorf("%s: %d %v", method, a.status, a.header)
		}
	}
	if after := len(s.entries()); after != before {
		t.Error("a method that is not allowed released a resource")
	}
}

func TestGuestRefusals(t *testing.T) {
	s := newStage(t)
	sim := guest(t, "lab", "agent 1")
	report := api.GuestRefusal{
		Code: "image_signature_rejected", Object: "registry.example/app@sha256:00", Cause: "no signature matches",
		Findings: []api.Finding{{Claim: "signer", Seen: "none", Wanted: []string{"key 1"}}}, Rule: "docker/registry.example",
	}
	ticket, err := s.client(sim).ReportRefusal(t.Context(), report)
	if err != nil {
		t.Fatalf("%v: %v", err, errors.Unwrap(err))
	}
	x := s.explain(string(ticket))
	if x.Stage != "guest" || x.Code != report.Code || x.Object != report.Object || x.Cause != report.Cause || x.Platform != "snp" ||
		!strings.HasPrefix(x.Subject, "guest:snp/") || len(x.Findings) != 1 || x.Rule != report.Rule {
		t.Errorf("explanation %+v", x)
	}
	if e := s.entry(x); e.Kind != "guest.refusal" {
		t.Errorf("entry %+v", e)
	}

	bearer := "Authorization: Bearer " + s.auth(sim).token()
	post := func(r api.GuestRefusal, headers ...string) answer {
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return s.send(http.MethodPost, s.guestURL+api.PathGuestRefusals, raw, headers...)
	}
	alter := func(f func(*api.GuestRefusal)) api.GuestRefusal { r := report; f(&r); return r }
	for name, c := range map[string]struct {
		report  api.GuestRefusal
		headers []string
		status  int
	}{
		"good":            {report, []string{bearer}, 200},
		"no token":        {report, nil, 401},
		"cookie only":     {report, []string{"Cookie: " + s.auth(sim).cookie}, 401},
		"admin token":     {report, []string{"Authorization: Bearer " + s.adminToken}, 401},
		"unknown code":    {alter(func(r *api.GuestRefusal) { r.Code = "made_up" }), []string{bearer}, 400},
		"no code":         {alter(func(r *api.GuestRefusal) { r.Code = "" }), []string{bearer}, 400},
		"long object":     {alter(func(r *api.GuestRefusal) { r.Object = strings.Repeat("a", 1025) }), []string{bearer}, 400},
		"long cause":      {alter(func(r *api.GuestRefusal) { r.Cause = strings.Repeat("a", 4097) }), []string{bearer}, 400},
		"long rule":       {alter(func(r *api.GuestRefusal) { r.Rule = strings.Repeat("a", 1025) }), []string{bearer}, 400},
		"many findings":   {alter(func(r *api.GuestRefusal) { r.Findings = make([]api.Finding, 33) }), []string{bearer}, 400},
		"long seen":       {alter(func(r *api.GuestRefusal) { r.Findings = []api.Finding{{Seen: strings.Repeat("a", 1025)}} }), []string{bearer}, 400},
		"many wanted":     {alter(func(r *api.GuestRefusal) { r.Findings = []api.Finding{{Wanted: make([]string, 33)}} }), []string{bearer}, 400},
		"larger than all": {alter(func(r *api.GuestRefusal) { r.Cause = strings.Repeat("a", 64<<10) }), []string{bearer}, 413},
	} {
		a := post(c.report, c.headers...)
		if a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a.status != 200 && (a.header.Get("Content-Type") != "application/problem+json" || strings.Contains(string(a.body), `"detail"`)) {
			t.Errorf("%s: %v %s", name, a.header, a.body)
		}
	}
}

// FuzzAttest sends arbitrary answers to fresh challenges: never a token, never
// a panic, always an error body of the caller's fault.
//
// Run it with -fuzzminimizetime=5x: signatures and the store make coverage
// vary from run to run, and the minimiser would spend all its time on that.
func FuzzAttest(f *testing.F) {
	s := newStageTrusting(f) // no simulated vendor: each worker process would make its own
	const nonce = "NONCE"    // stands for that of the challenge, or the mutator would never get past it
	key, err := jwe.Generate("")
	if err != nil {
		f.Fatal(err)
	}
	for _, evidence := range []string{`{}`, `{"attestation_report":{"version":3,"policy":196608,"report_data":[0],"signature":{"r":[1],"s":[1]}},"cert_chain":[{"cert_type":"VCEK","data":[48]}]}`} {
		raw, err := json.Marshal(api.Attestation{
			InitData:    &api.InitData{Format: "toml", Body: initDataText},
			RuntimeData: api.RuntimeData{Nonce: nonce, TEEPubKey: key.JWK()},
			TEEEvidence: api.TEEEvidence{PrimaryEvidence: json.RawMessage(evidence)},
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"init-data":null,"runtime-data":{"nonce":"NONCE","tee-pubkey":{}},"tee-evidence":{"primary_evidence":null,"additional_evidence":"x"}}`))
	f.Add([]byte(`[`))
	handler := server.New(s.b.Deps()).Guest()
	f.Fuzz(func(t *testing.T, body []byte) {
		open := httptest.NewRecorder()
		handler.ServeHTTP(open, httptest.NewRequest(http.MethodPost, api.PathAuth, strings.NewReader(`{"version":"0.4.0","tee":"snp","extra-params":""}`)))
		var c api.Challenge
		if err := json.Unmarshal(open.Body.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		body = bytes.ReplaceAll(body, []byte(nonce), []byte(c.Nonce))
		req := httptest.NewRequest(http.MethodPost, api.PathAttest, bytes.NewReader(body))
		req.AddCookie(&http.Cookie{Name: api.SessionCookie, Value: open.Result().Cookies()[0].Value})
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		var e api.ErrorInformation
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.Code == "" || rec.Code < 400 || rec.Code >= 500 {
			t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
		}
	})
}
