package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
)

// tell makes an admin request and decodes a success.
func tell[T any](s *stage, want int, method, path string, body []byte, headers ...string) (out T) {
	s.t.Helper()
	a := s.send(method, s.adminURL+path, body, append(headers, "Authorization: Bearer "+s.adminToken)...)
	if a.status != want {
		s.t.Fatalf("%s %s: %d %s; want %d", method, path, a.status, a.body, want)
	}
	if want/100 == 2 && len(a.body) > 0 {
		if err := json.Unmarshal(a.body, &out); err != nil {
			s.t.Fatalf("%s: %v", a.body, err)
		}
	}
	return out
}

func TestResourceVersions(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	const at = api.PathResources + "/a/b/c"
	type info = api.ResourceInfo
	first := tell[info](s, 200, http.MethodPut, at, []byte("one"), `If-Match: "0"`)
	tell[info](s, 409, http.MethodPut, at, []byte("x"), `If-Match: "0"`)
	tell[info](s, 409, http.MethodPut, at+"?version=7", []byte("x"))
	tell[info](s, 400, http.MethodPut, at+"?version=x", []byte("x"))
	tell[info](s, 400, http.MethodPut, at, []byte("x"), "If-Match: x")
	second := tell[info](s, 200, http.MethodPut, fmt.Sprint(at, "?version=", first.Version), []byte("two"))
	c := s.client(guest(t, "lab", "agent 1"))
	want := func(query, value string) {
		t.Helper()
		got, err := c.Resource(t.Context(), "kbs:///a/b/c"+query)
		if err != nil || string(got.Reveal()) != value {
			t.Fatalf("a/b/c%s: %q, %v", query, got.Reveal(), err)
		}
	}
	want("", "two")
	want(fmt.Sprint("?version=", first.Value), "one")
	third := tell[info](s, 200, http.MethodPost, at+"/rollback", fmt.Appendf(nil, `{"to":%d}`, first.Value))
	want("", "one")
	if third.Versions[0].CopyOf != first.Value || len(third.Versions) != 3 {
		t.Errorf("after the rollback: %+v", third)
	}
	tell[info](s, 409, http.MethodPost, at+"/rollback", []byte(`{"to":1}`), `If-Match: "1"`)
	tell[info](s, 404, http.MethodPost, at+"/rollback", []byte(`{"to":99}`))
	for _, bad := range []string{`{}`, `{"to":0}`, `{"to":1,"x":2}`, `[]`, ``} {
		tell[info](s, 400, http.MethodPost, at+"/rollback", []byte(bad))
	}
	tell[info](s, 200, http.MethodDelete, fmt.Sprint(at, "/versions/", second.Value), nil)
	tell[info](s, 404, http.MethodDelete, fmt.Sprint(at, "/versions/", second.Value), nil)
	tell[info](s, 409, http.MethodDelete, fmt.Sprint(at, "/versions/", third.Value), nil)
	tell[info](s, 400, http.MethodDelete, at+"/versions/x", nil)
	_, err := c.Resource(t.Context(), fmt.Sprint("kbs:///a/b/c?version=", second.Value))
	if fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a version that was destroyed: %v", err)
	}
	if _, err := c.Resource(t.Context(), "kbs:///a/b/c?version=x"); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("no version at all: %v", err)
	}
	tell[info](s, 409, http.MethodDelete, at, nil, `If-Match: "1"`)
	tell[info](s, 204, http.MethodDelete, at, nil)
	kinds := []string{}
	for _, e := range s.entries() {
		if e.Object == "resource/a/b/c" && e.Decision != "deny" {
			kinds = append(kinds, string(e.Kind)+" "+e.Details["version"])
		}
	}
	wanted := []string{
		"resource.put 1", "resource.put 2", "release 2", "release 1", "resource.rollback 3", "release 3",
		"resource.destroy 4", "resource.delete ",
	}
	if !slices.Equal(kinds, wanted) {
		t.Errorf("the log has %q", kinds)
	}
}

func TestResourceLists(t *testing.T) {
	s := newStage(t)
	for i := range 7 {
		q := url.Values{"owner": {fmt.Sprint("team-", i%2)}, "label": {"env=test", fmt.Sprint("n=", i)}}
		if i == 3 {
			q.Set("expires", "2027-01-01T00:00:00Z")
		}
		tell[api.ResourceInfo](s, 200, http.MethodPut, fmt.Sprintf("%s/many/t/%d?%s", api.PathResources, i, q.Encode()), []byte("v"))
	}
	list := func(query string) (paths []string) {
		t.Helper()
		for after := ""; ; {
			page := tell[api.ResourcePage](s, 200, http.MethodGet, api.PathResources+"?prefix=many/&"+query+"&continue="+after, nil)
			for _, r := range page.Items {
				paths = append(paths, r.Path)
			}
			if after = page.Continue; after == "" {
				return paths
			}
		}
	}
	for query, want := range map[string]int{
		"": 7, "limit=2": 7, "owner=team-0": 4, "owner=team-0&limit=1": 4, "label=n%3D3": 1, "label=n%3D3&label=env%3Dtest": 1,
		"label=n%3D3&label=env%3Dprod": 0, "expires_before=2028-01-01T00:00:00Z": 1,
	} {
		if got := list(query); len(got) != want {
			t.Errorf("%s: %v, want %d", query, got, want)
		}
	}
	for _, bad := range []string{"limit=0", "limit=1001", "continue=%25", "label=x", "label=a%3D1&label=a%3D2", "expires_before=soon"} {
		tell[api.ResourcePage](s, 400, http.MethodGet, api.PathResources+"?"+bad, nil)
	}
	if raw := tell[json.RawMessage](s, 200, http.MethodGet, api.PathResources+"?prefix=none", nil); !strings.Contains(string(raw), `"items":[]`) {
		t.Errorf("an empty list: %s", raw)
	}
}

// What a resource itself forbids is refused although the policy allows it; the
// ticket says what was seen and what was wanted, and the guest learns neither.
func TestWithheld(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	c := s.client(guest(t, "lab", "agent 1"))
	digest := "sha256:" + strings.Repeat("ab", 32)
	other := "sha256:" + strings.Repeat("cd", 32)
	soon := s.clock.now().Add(time.Hour)
	const at = api.PathResources + "/" + resourcePath
	for name, tt := range map[string]struct {
		meta  api.ResourceMeta
		query string
		code  fault.Code
		claim string
	}{
		"free":              {api.ResourceMeta{}, "", "", ""},
		"held":              {api.ResourceMeta{Hold: "under review"}, "", fault.ResourceHeld, "resource.hold"},
		"alive":             {api.ResourceMeta{Expires: soon}, "", "", ""},
		"expired":           {api.ResourceMeta{Expires: soon.Add(-2 * time.Hour)}, "", fault.ResourceExpired, "resource.expires"},
		"its image":         {api.ResourceMeta{Images: []string{digest}}, "?image=" + digest, "", ""},
		"its repository":    {api.ResourceMeta{Images: []string{"reg.example/team"}}, "?image=" + digest + "&image_reference=reg.example/team/app:1", "", ""},
		"another image":     {api.ResourceMeta{Images: []string{digest}}, "?image=" + other, fault.ImageBinding, "image"},
		"an old guest":      {api.ResourceMeta{Images: []string{digest}}, "", fault.ImageBinding, "image"},
		"the last one wins": {api.ResourceMeta{Images: []string{digest}}, "?image=" + digest + "&image=" + other, fault.ImageBinding, "image"},
		"a malformed image": {api.ResourceMeta{Images: []string{digest}}, "?image=sha256:ab", fault.InvalidRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(tt.meta)
			if err != nil {
				t.Fatal(err)
			}
			tell[api.ResourceInfo](s, 200, http.MethodPut, at+"/metadata", raw)
			value, err := c.Resource(t.Context(), resourceURI+tt.query)
			if tt.code == "" {
				if err != nil || string(value.Reveal()) != s.value {
					t.Fatal(err)
				}
				return
			}
			f, ok := err.(*fault.Fault) //nolint:errorlint // the very type is the client's promise
			if !ok || f.Code != tt.code {
				t.Fatalf("%v, want %s", err, tt.code)
			}
			if tt.claim == "" {
				return
			}
			x := s.explain(string(f.Ticket))
			i := slices.IndexFunc(x.Findings, func(f api.Finding) bool { return f.Claim == tt.claim })
			if i < 0 || x.Findings[i].Seen == "" || x.Policy == "" || x.Object != "resource/"+resourcePath {
				t.Errorf("explanation %+v", x)
			}
			s.entry(x)
			for _, word := range append(tt.meta.Images, "review") {
				if strings.Contains(f.Public(), word) || strings.Contains(err.Error(), word) {
					t.Errorf("the guest learns %q: %v", word, err)
				}
			}
		})
	}
	for _, bad := range []string{`{"images":["reg.example/app:tag"]}`, `{"owner":"a\nb"}`, `{"secret":1}`, `{"expires":"soon"}`, `[]`} {
		tell[api.ResourceInfo](s, 400, http.MethodPut, at+"/metadata", []byte(bad))
	}
	tell[api.ResourceInfo](s, 409, http.MethodPut, at+"/metadata", []byte(`{}`), `If-Match: "1"`)
	tell[api.ResourceInfo](s, 404, http.MethodPut, api.PathResources+"/no/such/one/metadata", []byte(`{}`))
	tell[api.ResourceInfo](s, 400, http.MethodPut, at+"?image=reg.example/app:tag", []byte("x"))
	bound, warned := 0, false
	for _, e := range s.entries() {
		warned = warned || e.Kind == api.AuditRelease && e.Details["expires"] != ""
		if e.Kind == api.AuditResourceMeta && strings.Contains(e.Details["images"], digest) {
			bound++
		}
	}
	if bound == 0 || !warned {
		t.Errorf("the log shows %d bindings, and that a resource expires soon: %t", bound, warned)
	}
}

// A policy sees the version and the image that a guest names, and may refuse.
func TestPolicySeesTheWish(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	s.putJSON(api.PathPolicies+"/resource/resource-policy", api.Policy{Version: -1, Rego: `package policy
default allow := false
allow if not data.query.version
`})
	c := s.client(guest(t, "lab", "agent 1"))
	if _, err := c.Resource(t.Context(), resourceURI); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resource(t.Context(), resourceURI+"?version=1"); fault.CodeOf(err) != fault.PolicyDenied {
		t.Fatalf("a version that the policy forbids: %v", err)
	}
}

func TestReleasesAreCounted(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	c := s.client(guest(t, "lab", "agent 1"))
	for range 3 {
		if _, err := c.Resource(t.Context(), resourceURI); err != nil {
			t.Fatal(err)
		}
	}
	s.stop() // writes the counts down
	s.start()
	t.Cleanup(func() { s.stop() })
	info := tell[api.ResourceInfo](s, 200, http.MethodGet, api.PathResources+"/"+resourcePath, nil)
	if info.Released != 3 || info.LastReleased.IsZero() {
		t.Errorf("%+v", info)
	}
}

func TestMasterKeyRotation(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	c := s.client(guest(t, "lab", "agent 1"))
	const at = api.PathMasterKey
	before := tell[api.MasterKey](s, 200, http.MethodGet, at, nil)
	if len(before.Keys) != 1 || before.Keys[0].State != "current" || before.Rewrap != nil {
		t.Fatalf("%+v", before)
	}
	tell[api.MasterKey](s, 404, http.MethodPost, at+"/rotate", []byte(`{"to":"local:0011223344556677"}`))
	tell[api.MasterKey](s, 400, http.MethodPost, at+"/rotate", []byte(`{"from":""}`))
	if a := s.send(http.MethodPost, s.adminURL+at+"/rotate", []byte(`{}`), s.role(admin.Operator)); a.status != 403 {
		t.Errorf("an operator rotates: %d %s", a.status, a.body)
	}
	after := tell[api.MasterKey](s, 200, http.MethodPost, at+"/rotate", []byte(`{}`))
	if after.Current == before.Current || after.Rewrap == nil {
		t.Fatalf("%+v", after)
	}
	if value, err := c.Resource(t.Context(), resourceURI); err != nil || string(value.Reveal()) != s.value {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); after.Rewrap.Finished.IsZero(); {
		if time.Now().After(deadline) {
			t.Fatalf("the walk does not end: %+v", after.Rewrap)
		}
		after = tell[api.MasterKey](s, 200, http.MethodGet, at, nil)
	}
	if after.Keys[0].State != "retired" || after.Rewrap.Failed != 0 || after.Rewrap.Moved == 0 {
		t.Fatalf("%+v, %+v", after, after.Rewrap)
	}
	s.stop()
	s.start()
	t.Cleanup(func() { s.stop() })
	if value, err := s.client(guest(t, "lab", "agent 1")).Resource(t.Context(), resourceURI); err != nil || string(value.Reveal()) != s.value {
		t.Fatalf("after a restart: %v", err)
	}
	kinds := map[api.AuditKind]string{}
	for _, e := range s.entries() {
		kinds[e.Kind] = e.Object
	}
	if kinds[api.AuditMasterKeyRotate] != "masterkey/"+after.Current || kinds[api.AuditMasterKeyRetire] != "masterkey/"+before.Current {
		t.Errorf("the log has %v", kinds)
	}
}
