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
