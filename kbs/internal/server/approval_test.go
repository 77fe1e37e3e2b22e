package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

// as sends with the token of somebody.
func (s *stage) as(token, method, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.send(method, s.adminURL+path, []byte(body), append(headers, "Authorization: Bearer "+token)...)
}

// pending is the approval that an answer speaks of.
func pending(t testing.TB, a answer) api.Approval {
	t.Helper()
	var out api.Approval
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusAccepted || out.ID == "" || !strings.HasSuffix(a.header.Get("Location"), api.PathApprovals+"/"+out.ID) {
		t.Fatalf("%d %s, %v", a.status, a.body, a.header)
	}
	return out
}

// marked is a stage whose tenant "a" wants a second person for some changes.
func marked(t testing.TB, marks ...string) *stage {
	t.Helper()
	s := newStage(t)
	a := s.in("a")
	s.putJSON(api.PathTenants+"/a", api.Tenant{Version: 1, Approvals: marks})
	return a
}

func (s *stage) decide(token, id, verb, reason string) answer {
	s.t.Helper()
	return s.as(token, "POST", api.PathApprovals+"/"+id+"/"+verb, `{"reason":"`+reason+`"}`)
}

func (s *stage) approval(id string) (out api.Approval) {
	s.t.Helper()
	if err := json.Unmarshal(s.must("GET", api.PathApprovals+"/"+id, nil), &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// broker is the stage as owners of the broker see it.
func (s *stage) broker() *stage {
	u := *s
	u.adminURL, u.guestURL = strings.TrimSuffix(s.adminURL, "/t/a"), strings.TrimSuffix(s.guestURL, "/t/a")
	u.adminToken = s.token("root", admin.Owner, "*")
	return &u
}

// rawStoreHas looks for a text in the files of the store.
func (s *stage) rawStoreHas(text string) bool {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.cfg.StateDir, "*.db*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no store: %v", err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(text)) {
			return true
		}
	}
	return false
}

// A change waits, is shown, is approved by another one, and is made by its
// author; the entry of the change names both.
func TestApproval(t *testing.T) {
	a := marked(t, "policy.*", "resource.delete")
	ann, bob := a.token("ann", admin.Owner, "a"), a.token("bob", admin.Approver, "a")
	const path = api.PathPolicies + "/resource/mine"
	got := a.as(ann, "PUT", path, `{"version":0,"rego":"package policy"}`)
	p := pending(t, got)
	if p.State != "pending" || p.Action != "policy.put" || p.Author != "admin:ann" || p.Seen == nil || *p.Seen != 0 || !strings.Contains(p.Body, "package policy") || !p.Expires.After(p.Created) {
		t.Errorf("%+v", p)
	}
	if got := a.as(ann, "GET", path, ""); got.status != http.StatusNotFound {
		t.Fatalf("it did not wait: %d %s", got.status, got.body)
	}
	for name, c := range map[string]struct {
		token  string
		status int
	}{
		"its author":           {ann, 403},
		"an owner":             {a.token("root", admin.Owner, "*"), 403},
		"an operator":          {a.token("oleg", admin.Operator, "a"), 403},
		"an auditor":           {a.token("aude", admin.Auditor, "a"), 403},
		"its author, approver": {a.token("ann", admin.Approver, "a"), 403},
		"another's approver":   {a.token("bob", admin.Approver, "b"), 401},
	} {
		if got := a.decide(c.token, p.ID, "approve", ""); got.status != c.status {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	got = a.decide(bob, p.ID, "approve", "reviewed")
	var done api.Approval
	if err := json.Unmarshal(got.body, &done); err != nil || got.status != 200 || done.State != "executed" || done.Status != 200 || done.Decider != "admin:bob" || done.Reason != "reviewed" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	var stored api.Policy
	if err := json.Unmarshal(a.must("GET", path, nil), &stored); err != nil || stored.Author != "admin:ann" || stored.Version != 1 {
		t.Errorf("%+v: %v", stored, err)
	}
	for _, verb := range []string{"approve", "deny"} {
		if got := a.decide(bob, p.ID, verb, ""); got.status != http.StatusConflict {
			t.Errorf("%s again: %d %s", verb, got.status, got.body)
		}
	}
	var kinds []api.AuditKind
	for _, e := range a.broker().entries() {
		if e.Object == "approval/"+p.ID || strings.HasPrefix(e.Object, "policy/resource/mine") {
			kinds = append(kinds, e.Kind)
		}
		if strings.HasPrefix(e.Object, "policy/resource/mine") && (e.Subject != "admin:ann" || e.Details["approved_by"] != "admin:bob" || e.Details["approval"] != p.ID || e.Tenant != "a") {
			t.Errorf("entry %+v", e)
		}
	}
	if want := []api.AuditKind{"approval.request", "approval.approve", "policy.put"}; !slices.Equal(kinds, want) {
		t.Errorf("entries %v", kinds)
	}
	// What is not marked does not wait, and marks are of one tenant.
	a.must("PUT", api.PathResources+"/x/y/z", []byte("1"))
	pending(t, a.admin("DELETE", api.PathResources+"/x/y/z", nil))
}

// The secret that waits is sealed, and nobody sees it before a guest does.
func TestApprovalOfASecret(t *testing.T) {
	a := marked(t, "resource.*")
	ann, bob := a.token("ann", admin.Operator, "a"), a.token("bob", admin.Approver, "a")
	a.value = "hush-" + strings.ToLower(base64.RawURLEncoding.EncodeToString([]byte(time.Now().String())))
	got := a.as(ann, "POST", api.PathResource+"/"+resourcePath, a.value)
	e := got.info(t)
	if got.status != http.StatusAccepted || e.Code != "approval_pending" || !strings.Contains(e.Detail, "kbsctl approve approval/") {
		t.Fatalf("%d %s", got.status, got.body)
	}
	id := e.Detail[strings.LastIndex(e.Detail, "/")+1:]
	if p := a.approval(id); p.Body != "" || p.Size != len(a.value) || p.SHA256 == "" || p.Method != http.MethodPost {
		t.Errorf("%+v", p)
	}
	for _, path := range []string{api.PathApprovals, api.PathApprovals + "/" + id, api.PathAudit + "/entries"} {
		if raw := a.must("GET", path, nil); strings.Contains(string(raw), a.value) {
			t.Errorf("%s shows the secret", path)
		}
	}
	if strings.Contains(a.log.String(), a.value) || a.rawStoreHas(a.value) {
		t.Error("the secret is in the log or in the store")
	}
	if got := a.decide(bob, id, "approve", "ok"); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	value, err := a.client(guest(t, "lab", "agent 1")).Resource(t.Context(), resourceURI)
	if err != nil || string(value.Reveal()) != a.value {
		t.Errorf("released: %v", err)
	}
	if a.rawStoreHas(a.value) {
		t.Error("the secret is in the store")
	}
}

// Of an object that changed since, nothing is made; nor of a request that was
// denied, withdrawn or came too late, or whose author lost their power.
func TestApprovalsThatFail(t *testing.T) {
	a := marked(t, "refvalue.put", "resource.delete", "tenant.*")
	root := a.token("root", admin.Owner, "*")
	bob := a.token("bob", admin.Approver, "a")
	s := a.broker()
	ask := func(token string) api.Approval {
		t.Helper()
		return pending(t, a.as(token, "DELETE", api.PathResources+"/"+resourcePath, ""))
	}
	there := func(want bool) {
		t.Helper()
		if got := a.as(root, "GET", api.PathResources+"/"+resourcePath, ""); (got.status == 200) != want {
			t.Errorf("the resource: %d %s", got.status, got.body)
		}
	}
	ann := a.token("ann", admin.Operator, "a")

	p := ask(ann)
	a.must("PUT", api.PathResources+"/"+resourcePath, []byte("changed"))
	if got := a.decide(bob, p.ID, "approve", ""); got.status != http.StatusConflict || !strings.Contains(got.info(t).Detail, "has changed since") {
		t.Errorf("changed: %d %s", got.status, got.body)
	}
	if q := a.approval(p.ID); q.State != "failed" || q.Code != "conflict" {
		t.Errorf("%+v", q)
	}
	p = ask(ann)
	if got := a.decide(bob, p.ID, "deny", "why?"); got.status != 200 {
		t.Errorf("deny: %d %s", got.status, got.body)
	}
	if got := a.decide(bob, p.ID, "approve", ""); got.status != http.StatusConflict {
		t.Errorf("denied: %d %s", got.status, got.body)
	}
	p = ask(ann)
	if got := a.decide(a.token("zoe", admin.Owner, "a"), p.ID, "deny", ""); got.status != 403 {
		t.Errorf("an owner denies: %d %s", got.status, got.body)
	}
	if got := a.decide(ann, p.ID, "deny", "my mistake"); got.status != 200 || !strings.Contains(string(got.body), `"withdrawn"`) {
		t.Errorf("withdraw: %d %s", got.status, got.body)
	}
	p = ask(ann)
	if got := a.as(ann, "POST", api.PathRevocations, `{"issuer":"vouchsafe-kbs","subject":"ann"}`); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got := a.decide(bob, p.ID, "approve", ""); got.status != http.StatusUnauthorized {
		t.Errorf("revoked: %d %s", got.status, got.body)
	}
	there(true)
	carl := a.token("carl", admin.Operator, "a")
	p = ask(carl)
	a.clock.advance(25 * time.Hour)
	bob, root = a.token("bob", admin.Approver, "a"), a.token("root", admin.Owner, "*")
	a.adminToken = a.token("owner-of-a", admin.Owner, "a")
	if q := a.approval(p.ID); q.State != "expired" {
		t.Errorf("%+v", q)
	}
	if got := a.decide(bob, p.ID, "approve", ""); got.status != http.StatusConflict {
		t.Errorf("too late: %d %s", got.status, got.body)
	}
	there(true)
	for _, id := range []string{"x", strings.Repeat("a", 12), "AAAAAAAAAAAA"} {
		if got := a.as(root, "GET", api.PathApprovals+"/"+id, ""); got.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", id, got.status, got.body)
		}
	}
	// A tenant that marks tenant.* protects its own record, and an approver of
	// the broker decides about that: its own cannot.
	got := s.as(root, "PUT", api.PathTenants+"/a", `{"version":-1}`)
	p = pending(t, got)
	if got := s.as(a.token("bob", admin.Approver, "a", "default"), "POST", api.PathApprovals+"/"+p.ID+"/approve", `{}`); got.status != 403 {
		t.Errorf("an approver of tenants: %d %s", got.status, got.body)
	}
	if got := s.as(a.token("eve", admin.Approver, "*"), "POST", api.PathApprovals+"/"+p.ID+"/approve", `{}`); got.status != 200 {
		t.Errorf("an approver of the broker: %d %s", got.status, got.body)
	}
	if got := a.as(root, "DELETE", api.PathResources+"/"+resourcePath, ""); got.status != http.StatusNoContent {
		t.Errorf("without marks: %d %s", got.status, got.body)
	}
}

// Many approvers at once make one change.
func TestApprovalOnce(t *testing.T) {
	a := marked(t, "policy.put")
	p := pending(t, a.as(a.token("ann", admin.Owner, "a"), "PUT", api.PathPolicies+"/resource/mine", `{"version":-1,"rego":"package policy"}`))
	const approvers = 6
	tokens := make([]string, approvers)
	for i := range tokens {
		text, err := broker.IssueToken(a.cfg.StateDir, admin.Token{
			Grant: admin.Grant{Role: admin.Approver, Tenants: []string{"a"}}, Subject: "approver-" + string(rune('a'+i)), Lifetime: time.Hour,
		}, a.clock.now())
		if err != nil {
			t.Fatal(err)
		}
		tokens[i] = string(text.Reveal())
	}
	statuses := make([]int, approvers)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() { statuses[i] = a.decide(tokens[i], p.ID, "approve", "").status })
	}
	wg.Wait()
	slices.Sort(statuses)
	if statuses[0] != 200 || statuses[1] != 409 || statuses[approvers-1] != 409 {
		t.Errorf("statuses %v", statuses)
	}
	var stored api.Policy
	if err := json.Unmarshal(a.must("GET", api.PathPolicies+"/resource/mine", nil), &stored); err != nil || stored.Version != 1 {
		t.Errorf("%+v: %v", stored, err)
	}
}

// What a plugin does for administrators can wait too, with its body; and a
// plugin is no way across the border.
func TestPluginsWaitAndHaveBorders(t *testing.T) {
	back, endpoint := startMoody(t)
	s := newStage(t)
	s.restart(func(c *config.Config) {
		c.Plugins = []config.Plugin{{Name: "external", Backends: []config.PluginBackend{{Name: "moody", Endpoint: endpoint, TimeoutMS: 3000}}}}
	})
	s.putJSON(api.PathTenants+"/default", api.Tenant{Approvals: []string{"plugin.*"}})
	const path = api.PathPrefix + "/external/moody/open"
	got := s.admin(http.MethodPost, path, []byte("hello"))
	if got.status != http.StatusAccepted || len(back.seen) != 0 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	detail := got.info(t).Detail
	id := detail[strings.LastIndex(detail, "/")+1:]
	if got := s.decide(s.token("bob", admin.Approver, "default"), id, "approve", ""); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if r := <-back.seen; string(r.GetBody()) != "hello" || r.GetMethod() != http.MethodPost || len(back.seen) != 0 {
		t.Errorf("the back end got %v, and %d more", r, len(back.seen))
	}
	a := s.in("a")
	for _, bearer := range []string{a.adminToken, a.auth(guest(t, "lab", "agent 1")).token()} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if got := s.as(bearer, method, path, ""); got.status != http.StatusUnauthorized && got.status != http.StatusNotFound {
				t.Errorf("%s across the border: %d %s", method, got.status, got.body)
			}
		}
	}
	if len(back.seen) != 0 {
		t.Error("a stranger reached the back end")
	}
}
