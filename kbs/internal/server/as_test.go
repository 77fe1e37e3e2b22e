package server_test

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	pb "github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// newService is a stage whose verifier serves others, in the clear as the
// field's brokers call it.
func newService(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.stop()
	as := &s.cfg.AttestationService
	as.GRPC.Sockets, as.GRPC.InsecureHTTP = []string{"127.0.0.1:0"}, true
	as.REST.Sockets, as.REST.InsecureHTTP = []string{"127.0.0.1:0"}, true
	s.cfg.RVPS.GRPC.Sockets, s.cfg.RVPS.GRPC.InsecureHTTP = []string{"127.0.0.1:0"}, true
	s.start()
	s.know()
	s.acceptLab()
	return s
}

func dial(t *testing.T, ln net.Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

var b64 = base64.RawURLEncoding.EncodeToString

// bound is evidence of a guest for structured runtime data.
func bound(t *testing.T, sim *snp.Simulator, runtime string) *pb.IndividualAttestationRequest {
	t.Helper()
	text, err := jcs.Transform([]byte(runtime))
	if err != nil {
		t.Fatal(err)
	}
	h := crypto.SHA384.New()
	h.Write(text)
	data, err := measure.NewReportData(h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := sim.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return &pb.IndividualAttestationRequest{
		Tee: "snp", Evidence: b64(ev.Data),
		RuntimeData: &pb.IndividualAttestationRequest_StructuredRuntimeData{StructuredRuntimeData: runtime},
		InitData:    &pb.IndividualAttestationRequest_InitDataToml{InitDataToml: initDataText},
	}
}

// runtimeData is what a broker of the field asks about.
func runtimeData(t *testing.T, nonce string) string {
	t.Helper()
	key, err := jwe.Generate("")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{"additional-evidence": "", "nonce": nonce, "tee-pubkey": key.JWK()})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// payload verifies a token as a relying party does, with the key set that the
// service publishes on its own port.
func (s *stage) payload(url, text string) map[string]any {
	s.t.Helper()
	a := s.send(http.MethodGet, url+api.PathJWKS, nil)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(a.body, &set); err != nil {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
	jws, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := jws.Verify(set)
	if err != nil {
		s.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func TestAttestationServiceGRPC(t *testing.T) {
	s := newService(t)
	ln := s.listeners.AS[0]
	conn := dial(t, ln)
	as := pb.NewAttestationServiceClient(conn)
	sim := guest(t, "lab", "agent 1")
	good := bound(t, sim, runtimeData(t, "n1"))
	out, err := as.AttestationEvaluate(t.Context(), &pb.AttestationRequest{VerificationRequests: []*pb.IndividualAttestationRequest{good}})
	if err != nil {
		t.Fatal(err)
	}
	claims := s.payload("http://"+ln.Addr().String(), out.GetAttestationToken())
	cpu := claims["submods"].(map[string]any)["cpu0"].(map[string]any)
	runtime := cpu["ear.veraison.annotated-evidence"].(map[string]any)["runtime_data_claims"].(map[string]any)
	if cpu["ear.status"] != "affirming" || cpu["ear.appraisal-policy-id"] != "default" || runtime["nonce"] != "n1" || runtime["tee-pubkey"] == nil {
		t.Errorf("token %v", claims)
	}
	if _, verbose := runtime["additional-evidence"]; verbose {
		t.Error("the token repeats the evidence")
	}
	all := s.entries()
	if e := all[len(all)-1]; e.Kind != api.AuditEvaluate || e.Decision != "allow" || e.Details["status"] != "affirming" {
		t.Errorf("entry %+v", e)
	}
	// Who may have evidence judged must not gain from this broker by it.
	if a := s.send(http.MethodGet, s.guestURL+api.PathResource+"/"+resourcePath, nil, "Authorization: Bearer "+out.GetAttestationToken()); a.status != http.StatusUnauthorized {
		t.Errorf("the broker took a token that it made for others: %d", a.status)
	}
	if h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", h, err)
	}
	c, err := as.GetAttestationChallenge(t.Context(), &pb.ChallengeRequest{Inner: map[string]string{"tee": "snp", "tee_params": "{}"}})
	if err != nil || c.GetAttestationChallenge() != "" {
		t.Errorf("challenge %v, %v", c, err)
	}
	if _, err := as.GetAttestationChallenge(t.Context(), &pb.ChallengeRequest{Inner: map[string]string{"tee": "tdx"}}); status.Code(err) != codes.Aborted {
		t.Errorf("challenge of a platform that is off: %v", err)
	}
	s.refusals(as, sim, good)
}

// refusals goes through what the service must not judge. All of it is ABORTED,
// tells nothing, and can be explained.
func (s *stage) refusals(as pb.AttestationServiceClient, sim *snp.Simulator, good *pb.IndividualAttestationRequest) {
	t := s.t.(*testing.T)
	raw := func(text string) *pb.IndividualAttestationRequest_RawRuntimeData {
		return &pb.IndividualAttestationRequest_RawRuntimeData{RawRuntimeData: text}
	}
	with := func(change func(*pb.IndividualAttestationRequest)) []*pb.IndividualAttestationRequest {
		r := bound(t, sim, runtimeData(t, "n2"))
		change(r)
		return []*pb.IndividualAttestationRequest{r}
	}
	for name, c := range map[string]struct {
		requests []*pb.IndividualAttestationRequest
		policy   string
		code     string
		recorded bool
	}{
		"nothing":            {nil, "", "invalid_request", true},
		"unknown platform":   {with(func(r *pb.IndividualAttestationRequest) { r.Tee = "abacus" }), "", "platform_not_enabled", true},
		"platform off":       {with(func(r *pb.IndividualAttestationRequest) { r.Tee = "tdx" }), "", "platform_not_enabled", true},
		"bound to nothing":   {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeData = nil }), "", "invalid_request", true},
		"other runtime data": {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeData = good.RuntimeData }), "", "binding_mismatch", true},
		"other raw data":     {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeData = raw(b64([]byte("other"))) }), "", "binding_mismatch", true},
		"raw, not base64":    {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeData = raw("+/") }), "", "invalid_request", false},
		"no hash like that":  {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeDataHashAlgorithm = "md5" }), "", "invalid_request", true},
		"another hash":       {with(func(r *pb.IndividualAttestationRequest) { r.RuntimeDataHashAlgorithm = "sha256" }), "", "binding_mismatch", true},
		"other init-data": {with(func(r *pb.IndividualAttestationRequest) {
			r.InitData = &pb.IndividualAttestationRequest_InitDataToml{InitDataToml: strings.Replace(initDataText, "aa.toml", "bb.toml", 1)}
		}), "", "init_data_mismatch", true},
		"init-data is not": {with(func(r *pb.IndividualAttestationRequest) {
			r.InitData = &pb.IndividualAttestationRequest_InitDataToml{InitDataToml: "["}
		}), "", "invalid_request", true},
		"stranger":            {[]*pb.IndividualAttestationRequest{bound(t, guest(t, "stranger", "agent 1"), runtimeData(t, "n"))}, "", "root_untrusted", true},
		"evidence, no JSON":   {with(func(r *pb.IndividualAttestationRequest) { r.Evidence = b64([]byte("{")) }), "", "invalid_request", false},
		"evidence, no base64": {with(func(r *pb.IndividualAttestationRequest) { r.Evidence = "{}" }), "", "invalid_request", false},
		"no such policy":      {with(func(*pb.IndividualAttestationRequest) {}), "other", "policy_error", true},
		"policy's name":       {with(func(*pb.IndividualAttestationRequest) {}), "../x", "invalid_request", true},
		"one of two is bad":   {append(with(func(*pb.IndividualAttestationRequest) {}), bound(t, guest(t, "stranger", "agent 1"), runtimeData(t, "n"))), "", "root_untrusted", true},
	} {
		req := &pb.AttestationRequest{VerificationRequests: c.requests}
		if c.policy != "" {
			req.PolicyIds = []string{c.policy, "default"}
		}
		_, err := as.AttestationEvaluate(t.Context(), req)
		text := status.Convert(err).Message()
		if status.Code(err) != codes.Aborted || !strings.HasPrefix(text, c.code) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s.discreet([]byte(strings.ReplaceAll(text, "../x", "")))
		if c.recorded {
			x := s.explain(strings.TrimSuffix(strings.TrimPrefix(text, c.code+" (ticket "), ")"))
			if e := s.entry(x); x.Stage != "evaluate" || e.Kind != api.AuditEvaluate {
				t.Errorf("%s: %+v", name, x)
			}
		}
	}
	large := &pb.AttestationRequest{VerificationRequests: with(func(r *pb.IndividualAttestationRequest) { r.Evidence = strings.Repeat("A", 9<<20) })}
	if _, err := as.AttestationEvaluate(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large: %v", err)
	}
	many := &pb.AttestationRequest{VerificationRequests: make([]*pb.IndividualAttestationRequest, 33)}
	for i := range many.VerificationRequests {
		many.VerificationRequests[i] = &pb.IndividualAttestationRequest{}
	}
	if _, err := as.AttestationEvaluate(t.Context(), many); status.Code(err) != codes.Aborted {
		t.Errorf("too many: %v", err)
	}
}

// The digest of init-data, and report data of a caller's own making, are
// compared as they are.
func TestAttestationServiceRawData(t *testing.T) {
	s := newService(t)
	sim := guest(t, "lab", "agent 1")
	data, err := measure.NewReportData([]byte("of somebody's own making"))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := sim.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	digest := launch(t, "agent 1").InitDataDigest
	out, err := pb.NewAttestationServiceClient(dial(t, s.listeners.AS[0])).AttestationEvaluate(t.Context(), &pb.AttestationRequest{
		PolicyIds: []string{"default"},
		VerificationRequests: []*pb.IndividualAttestationRequest{{
			Tee: "snp", Evidence: b64(ev.Data),
			RuntimeData: &pb.IndividualAttestationRequest_RawRuntimeData{RawRuntimeData: b64([]byte("of somebody's own making"))},
			InitData:    &pb.IndividualAttestationRequest_InitDataDigest{InitDataDigest: b64(digest)},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	claims := s.payload("http://"+s.listeners.AS[0].Addr().String(), out.GetAttestationToken())
	ann := claims["submods"].(map[string]any)["cpu0"].(map[string]any)["ear.veraison.annotated-evidence"].(map[string]any)
	if v, ok := ann["runtime_data_claims"]; !ok || v != nil {
		t.Errorf("claims %v", ann)
	}
}

// as puts a credential into the metadata.
func as(t *testing.T, header string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", strings.TrimPrefix(header, "Authorization: "))
}

// What changes the broker's state needs an administrator, whatever protocol it
// comes by; the field's services ask nobody.
func TestServicesNeedAdministrators(t *testing.T) {
	s := newService(t)
	viewer, operator, owner := s.role(admin.Viewer), s.role(admin.Operator), s.role(admin.Owner)
	conn := dial(t, s.listeners.AS[0])
	service := pb.NewAttestationServiceClient(conn)
	put := func(ctx context.Context) error {
		_, err := service.SetAttestationPolicy(ctx, &pb.SetPolicyRequest{PolicyId: "other_cpu", Policy: b64([]byte("package policy"))})
		return err
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"nobody": {t.Context(), codes.Unauthenticated}, "a stranger": {as(t, "Bearer a.b.c"), codes.Unauthenticated},
		"viewer": {as(t, viewer), codes.PermissionDenied}, "operator": {as(t, operator), codes.PermissionDenied}, "owner": {as(t, owner), codes.OK},
	} {
		if err := put(c.ctx); status.Code(err) != c.want {
			t.Errorf("policy by %s: %v", name, err)
		}
	}
	if _, err := service.SetAttestationPolicy(as(t, owner), &pb.SetPolicyRequest{PolicyId: "other_cpu", Policy: b64([]byte("package"))}); status.Code(err) != codes.Aborted {
		t.Errorf("a policy that does not compile: %v", err)
	}
	message := `{"version":"0.1.0","type":"sample","payload":"` + base64.StdEncoding.EncodeToString([]byte(`{"a/b":[1,"x"]}`)) + `"}`
	for name, rv := range map[string]reference.ReferenceValueProviderServiceClient{
		"beside the attestation service": reference.NewReferenceValueProviderServiceClient(conn),
		"alone":                          reference.NewReferenceValueProviderServiceClient(dial(t, s.listeners.RVPS[0])),
	} {
		register := &reference.ReferenceValueRegisterRequest{Message: message}
		query := &reference.ReferenceValueQueryRequest{ReferenceValueId: "a/b"}
		if _, err := rv.RegisterReferenceValue(t.Context(), register); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := rv.RegisterReferenceValue(as(t, viewer), register); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := rv.QueryReferenceValue(t.Context(), query); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s shows a reference value to anybody: %v", name, err)
		}
		if _, err := rv.RegisterReferenceValue(as(t, operator), register); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if out, err := rv.QueryReferenceValue(as(t, viewer), query); err != nil || out.GetReferenceValueResults() != `[1,"x"]` {
			t.Errorf("%s: %v, %v", name, out, err)
		}
		none := &reference.ReferenceValueQueryRequest{ReferenceValueId: "none"}
		if out, err := rv.QueryReferenceValue(as(t, viewer), none); err != nil || out.ReferenceValueResults != nil {
			t.Errorf("%s: %v, %v", name, out, err)
		}
		if _, err := rv.RegisterReferenceValue(as(t, operator), &reference.ReferenceValueRegisterRequest{Message: "{"}); status.Code(err) != codes.Aborted {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := s.send(http.MethodGet, "http://"+s.listeners.RVPS[0].Addr().String()+api.PathJWKS, nil); a.status != http.StatusNotFound {
		t.Errorf("a key set beside reference values: %d", a.status)
	}
}

func TestAttestationServiceREST(t *testing.T) {
	s := newService(t)
	url := "http://" + s.listeners.REST[0].Addr().String()
	evidence := bound(t, guest(t, "lab", "agent 1"), runtimeData(t, "n"))
	body := func(change func(one, all map[string]any)) []byte {
		one := map[string]any{
			"tee": "snp", "evidence": evidence.GetEvidence(), "runtime_data_hash_algorithm": "sha384",
			"runtime_data": map[string]any{"structured": json.RawMessage(evidence.GetStructuredRuntimeData())},
			"init_data":    map[string]any{"init_data_toml": initDataText},
		}
		all := map[string]any{"verification_requests": []any{one}, "policy_ids": []string{}}
		change(one, all)
		raw, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	a := s.send(http.MethodPost, url+"/attestation", body(func(_, _ map[string]any) {}))
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	cpu := s.payload(url, string(a.body))["submods"].(map[string]any)["cpu0"].(map[string]any)
	if cpu["ear.status"] != "affirming" {
		t.Errorf("token %v", cpu)
	}
	for name, c := range map[string]struct {
		change func(one, all map[string]any)
		status int
	}{
		"no policy_ids":     {func(_, all map[string]any) { delete(all, "policy_ids") }, 400},
		"two runtime datas": {func(one, _ map[string]any) { one["runtime_data"] = map[string]any{"structured": 1, "raw": "AA"} }, 400},
		"no runtime data":   {func(one, _ map[string]any) { one["runtime_data"] = map[string]any{} }, 400},
		"empty raw":         {func(one, _ map[string]any) { one["runtime_data"] = map[string]any{"raw": ""} }, 400},
		"two init datas": {func(one, _ map[string]any) {
			one["init_data"] = map[string]any{"init_data_toml": "", "init_data_digest": ""}
		}, 400},
		"another":   {func(one, _ map[string]any) { one["runtime_data"] = map[string]any{"raw": "AAAA"} }, 401},
		"too large": {func(one, _ map[string]any) { one["evidence"] = strings.Repeat("A", 9<<20) }, 413},
	} {
		a := s.send(http.MethodPost, url+"/attestation", body(c.change))
		if a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		s.discreet(a.body)
	}
	owner := s.role(admin.Owner)
	set := []byte(`{"policy_id":"rest_cpu","policy":"` + b64([]byte("package policy")) + `"}`)
	for path, c := range map[string]struct {
		method  string
		body    []byte
		headers []string
		status  int
		want    string
	}{
		"/policy":                          {"POST", set, nil, 401, "admin access denied"},
		"/policy?owner":                    {"POST", set, []string{owner}, 200, ""},
		"/policy?list":                     {"GET", nil, []string{owner}, 200, `{"policy-id":"default_cpu"}`},
		"/policy?anybody":                  {"GET", nil, nil, 401, ""},
		"/challenge":                       {"POST", []byte(`{"tee":"snp","tee_params":""}`), nil, 200, ""},
		"/challenge?off":                   {"POST", []byte(`{"tee":"se","tee_params":""}`), nil, 401, "platform_not_enabled"},
		"/challenge?form":                  {"POST", []byte(`{"tee":"snp","tee":"se"}`), nil, 400, "invalid_request"},
		"/healthz":                         {"GET", nil, nil, 200, ""},
		"/policy/default_cpu":              {"GET", nil, []string{owner}, 404, ""},
		"/kbs/v0/resource/" + resourcePath: {"GET", nil, []string{owner}, 404, ""},
	} {
		a := s.send(c.method, url+path, c.body, c.headers...)
		if a.status != c.status || !strings.Contains(string(a.body), c.want) {
			t.Errorf("%s %s: %d %s", c.method, path, a.status, a.body)
		}
	}
}

// trusting makes home trust the tokens of a service, and ask it.
func (s *stage) asks(service *stage) {
	s.t.Helper()
	set := service.send(http.MethodGet, service.guestURL+api.PathJWKS, nil).body
	jwks, token := filepath.Join(s.t.TempDir(), "jwks"), filepath.Join(s.t.TempDir(), "token")
	for path, raw := range map[string][]byte{jwks: set, token: []byte(service.adminToken)} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.stop()
	as := &s.cfg.AttestationService
	as.Type, as.ASAddr, as.ASTokenFile = "coco_as_grpc", "http://"+service.listeners.AS[0].Addr().String(), token
	s.cfg.AttestationToken.TrustedJWKSets = []string{jwks}
	s.start()
}

// One broker verifies for another: handshake, release, policies and reference
// values.
func TestOurServiceServesOurBroker(t *testing.T) {
	service, home := newService(t), newStage(t)
	for _, p := range policy.Defaults() {
		if p.Kind == string(policy.Resource) {
			text := strings.Replace(p.Rego, "accepted_simulated_roots := set()", `accepted_simulated_roots := {"lab"}`, 1)
			home.putJSON(api.PathPolicies+"/"+p.Kind+"/"+p.ID, api.Policy{Version: 1, Rego: text})
		}
	}
	home.asks(service)
	value, err := home.client(guest(t, "lab", "agent 1")).Resource(t.Context(), "kbs:///"+resourcePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(value.Reveal()) != home.value {
		t.Error("another value came")
	}
	var kinds []string
	for _, e := range home.entries() {
		if e.Kind == api.AuditAttest || e.Kind == api.AuditRelease {
			kinds = append(kinds, string(e.Kind)+" "+e.Decision+" "+e.Details["issuer"])
		}
	}
	if len(kinds) < 2 || kinds[0] != "attest allow vouchsafe-kbs" || !strings.HasPrefix(kinds[1], "release allow") {
		t.Errorf("entries %q", kinds)
	}
	// A refusal there is one here, with a ticket of each.
	h := home.auth(guest(t, "stranger", "agent 1"))
	a := h.attest(h.message(h.nonce))
	if a.status != http.StatusUnauthorized || a.info(t).Code != "root_untrusted" {
		t.Errorf("a stranger: %d %s", a.status, a.body)
	}
	if x := home.explain(a.info(t).Ticket); !strings.Contains(x.Cause, "root_untrusted (ticket ") {
		t.Errorf("explanation %+v", x)
	}
	// What decides is changed where it decides.
	home.must(http.MethodPost, api.PathAttestationPolicy, []byte(`{"type":"rego","policy_id":"handed_cpu","policy":"`+b64([]byte("package policy"))+`"}`))
	if !strings.Contains(string(service.must(http.MethodGet, api.PathPolicies, nil)), "handed_cpu") || strings.Contains(string(home.must(http.MethodGet, api.PathPolicies, nil)), "handed_cpu") {
		t.Error("the policy was not handed on")
	}
	home.must(http.MethodPost, api.PathReferenceValue, []byte(`{"version":"0.1.0","type":"sample","payload":"`+base64.StdEncoding.EncodeToString([]byte(`{"far":1}`))+`"}`))
	if got := string(home.must(http.MethodGet, api.PathReferenceValue+"/far", nil)); got != "1" {
		t.Errorf("reference value %s", got)
	}
	if a := home.admin(http.MethodGet, api.PathReferenceValue+"/none", nil); a.status != http.StatusNotFound {
		t.Errorf("no such value: %d", a.status)
	}
	for path, body := range map[string]string{
		api.PathPolicies + "/attestation/default_cpu": `{"version":-1,"rego":"package policy"}`, api.PathRefValues + "/x": `{"version":-1,"value":[1]}`,
	} {
		if a := home.admin(http.MethodPut, path, []byte(body)); a.status != http.StatusConflict {
			t.Errorf("%s would change what decides nothing: %d %s", path, a.status, a.body)
		}
	}
	service.stop()
	h = home.auth(guest(t, "lab", "agent 1"))
	if a := h.attest(h.message(h.nonce)); a.status != http.StatusServiceUnavailable || a.info(t).Code != "unavailable" {
		t.Errorf("without the service: %d %s", a.status, a.body)
	}
}

// impostor answers every question with one token, whoever asks.
type impostor struct {
	pb.UnimplementedAttestationServiceServer
	token string
}

func (i *impostor) AttestationEvaluate(context.Context, *pb.AttestationRequest) (*pb.AttestationResponse, error) {
	return &pb.AttestationResponse{AttestationToken: i.token}, nil
}

// A service that is wrong, or somebody in its place, cannot hand one guest the
// token of another, nor one that nobody signed.
func TestTokensOfAnotherGuestAreRefused(t *testing.T) {
	service, home := newService(t), newStage(t)
	home.asks(service)
	as := pb.NewAttestationServiceClient(dial(t, service.listeners.AS[0]))
	sim := guest(t, "lab", "agent 1")
	token := func(runtime string) string {
		out, err := as.AttestationEvaluate(t.Context(), &pb.AttestationRequest{VerificationRequests: []*pb.IndividualAttestationRequest{bound(t, sim, runtime)}})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetAttestationToken()
	}
	fake := &impostor{}
	srv := grpc.NewServer()
	pb.RegisterAttestationServiceServer(srv, fake)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	home.stop()
	home.cfg.AttestationService.ASAddr = "http://" + ln.Addr().String()
	home.start()
	for name, made := range map[string]func(h *handshake) string{
		"another guest's key": func(h *handshake) string { return token(runtimeData(t, h.nonce)) },
		"another nonce": func(h *handshake) string {
			raw, err := json.Marshal(map[string]any{"nonce": "old", "tee-pubkey": h.key.JWK()})
			if err != nil {
				t.Fatal(err)
			}
			return token(string(raw))
		},
		"not signed": func(*handshake) string { return "a.b.c" },
		"nothing":    func(*handshake) string { return "" },
	} {
		h := home.auth(sim)
		fake.token = made(h)
		if a := h.attest(h.message(h.nonce)); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	h := home.auth(sim)
	raw, err := json.Marshal(map[string]any{"nonce": h.nonce, "tee-pubkey": h.key.JWK()})
	if err != nil {
		t.Fatal(err)
	}
	fake.token = token(string(raw))
	if a := h.attest(h.message(h.nonce)); a.status != http.StatusOK {
		t.Errorf("the baseline: %d %s", a.status, a.body)
	}
}
