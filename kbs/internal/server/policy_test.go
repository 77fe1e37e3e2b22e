package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func decodeAs[T any](t testing.TB, raw []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}

// A policy for a prefix goes through its stages; each step compares the
// version that the caller saw and is in the audit log.
func TestPolicyStagesAPI(t *testing.T) {
	s := newStage(t)
	const id = "/resource/resource/prod/keys"
	put := func(stage, text string, headers ...string) answer {
		t.Helper()
		raw, err := json.Marshal(api.Policy{Version: -1, Rego: text, Stage: stage, Note: "why"})
		if err != nil {
			t.Fatal(err)
		}
		return s.send(http.MethodPut, s.adminURL+api.PathPolicies+id, raw, append(headers, "Authorization: Bearer "+s.adminToken)...)
	}
	move := func(c api.StageChange) answer {
		t.Helper()
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return s.admin(http.MethodPost, api.PathPolicyStages+id, raw)
	}
	if a := put("", "package policy\n\nallow := false\n", `If-Match: "7"`); a.status != 409 {
		t.Fatalf("stale If-Match: %d %s", a.status, a.body)
	}
	if a := put("", "package policy\n\nallow := false\n", "If-Match: nonsense"); a.status != 400 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a := put("", "package policy\n\nallow := false\n")
	if p := decodeAs[api.Policy](t, a.body); a.header.Get("ETag") != `"1"` || !p.InForce || p.Note != "why" {
		t.Fatalf("%+v", p)
	}
	if a := put("production", "package policy"); a.status != 400 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	put(api.StageShadow, "package policy\n\nallow := true\n")
	if a := move(api.StageChange{To: "enforce", Version: 9}); a.status != 409 || a.info(t).Code != string(fault.Conflict) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if p := decodeAs[api.Policy](t, move(api.StageChange{To: "enforce", Version: 1, Note: "looks good"}).body); p.Version != 2 || p.Stage != "enforce" {
		t.Fatalf("%+v", p)
	}
	if p := decodeAs[api.Policy](t, move(api.StageChange{To: "enforce", Version: 2, Rollback: true}).body); p.Version != 1 {
		t.Fatalf("%+v", p)
	}
	all := decodeAs[struct{ Items []api.Policy }](t, s.must(http.MethodGet, api.PathPolicyVersions+id, nil)).Items
	if len(all) != 2 || all[0].Stage != "enforce" || all[1].Stage != "retired" || all[1].Rego != "" {
		t.Fatalf("%+v", all)
	}
	if p := decodeAs[api.Policy](t, s.must(http.MethodGet, api.PathPolicies+id+"?version=2", nil)); !strings.Contains(p.Rego, "true") {
		t.Fatalf("%+v", p)
	}
	entries := s.entries()
	for i, want := range []struct{ kind, from, to string }{{"policy.stage", "1", "2"}, {"policy.rollback", "2", "1"}} {
		e := entries[len(entries)-2+i]
		if string(e.Kind) != want.kind || e.Details["from"] != want.from || e.Details["to"] != want.to || e.Subject != "admin:bootstrap" {
			t.Errorf("%+v", e)
		}
	}
	if a := s.send(http.MethodDelete, s.adminURL+api.PathPolicies+id, nil, "Authorization: Bearer "+s.adminToken, `If-Match: "2"`); a.status != 409 {
		t.Fatalf("stale delete: %d %s", a.status, a.body)
	}
	s.must(http.MethodDelete, api.PathPolicies+id, nil)
	if a := s.admin(http.MethodGet, api.PathPolicies+id, nil); a.status != 404 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.must(http.MethodGet, api.PathPolicyVersions+id, nil)
}

// What was refused to real guests is recorded, and holds a promotion up that
// would allow it.
func TestPromotionAgainstRecordedDecisions(t *testing.T) {
	s := newStage(t)
	s.acceptLab()
	s.know()
	unknown := s.client(guest(t, "lab", "agent 2"))
	if _, err := unknown.Resource(t.Context(), "kbs:///"+resourcePath); err == nil {
		t.Fatal("an unknown guest got the resource")
	}
	const all = "package policy\n\nallow := data.plugin == \"resource\"\n"
	const id = "/resource/resource/prod"
	post := func(path string, v any) answer {
		t.Helper()
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return s.admin(http.MethodPost, path, raw)
	}
	a := post(api.PathPolicyReplays+id, api.ReplayRequest{Rego: all})
	rep := decodeAs[api.ReplayReport](t, a.body)
	if rep.Tally.NewlyAllowed != 1 || len(rep.Flips) != 1 || rep.Flips[0].Decision.Path[0] != "prod" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := post(api.PathPolicyReplays+id, api.ReplayRequest{Rego: "package policy\n\nallow if x\n"}); a.status != 400 || !strings.Contains(string(a.body), "3:10") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	items := decodeAs[struct{ Items []api.Decision }](t, s.must(http.MethodGet, api.PathDecisions+"?limit=10", nil)).Items
	if len(items) != 2 { // the appraisal and the release
		t.Fatalf("%+v", items)
	}
	for _, d := range items {
		if strings.Contains(string(d.Input), "tee-pubkey") || strings.Contains(string(d.Input), "nonce") {
			t.Errorf("volatile: %s", d.Input)
		}
	}
	if a := s.admin(http.MethodGet, api.PathDecisions+"?since=yesterday", nil); a.status != 400 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.putJSON(api.PathPolicies+id, api.Policy{Rego: all, Stage: api.StageShadow})
	if _, err := unknown.Resource(t.Context(), "kbs:///"+resourcePath); err == nil {
		t.Fatal("the shadow decided")
	}
	if rep := decodeAs[api.ShadowReport](t, s.must(http.MethodGet, api.PathPolicyShadows+id, nil)); rep.Tally.NewlyAllowed == 0 {
		t.Fatalf("%+v", rep)
	}
	move := api.StageChange{To: api.StageEnforce, Version: -1}
	if a := post(api.PathPolicyStages+id, move); a.status != 409 || a.info(t).Code != string(fault.NewlyAllowed) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if e := s.entries(); e[len(e)-1].Kind != "policy.stage" || e[len(e)-1].Decision != "deny" {
		t.Errorf("%+v", e[len(e)-1])
	}
	move.AllowNewlyAllowed = true
	if a := post(api.PathPolicyStages+id, move); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if e := s.entries(); e[len(e)-1].Details["allow_newly_allowed"] == "" {
		t.Errorf("%+v", e[len(e)-1])
	}
	if _, err := unknown.Resource(t.Context(), "kbs:///"+resourcePath); err != nil {
		t.Fatalf("the promoted policy does not decide: %v", err)
	}
}
