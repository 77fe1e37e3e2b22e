package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const (
	allowAll = "package policy\n\nallow := true\n"
	denyAll  = "package policy\n\nallow := false\n"
)

func unrecorded(store.Tx, Moved) error { return nil }

func (b *bench) stage(t testing.TB, stage, id, text string) api.Policy {
	t.Helper()
	p, err := b.docs.Put(t.Context(), api.Policy{Kind: "resource", ID: id, Version: -1, Rego: text, Stage: stage}, unaudited)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) move(t testing.TB, id string, c api.StageChange) (Moved, error) {
	t.Helper()
	return b.docs.Move(t.Context(), Resource, id, c, nil, unrecorded)
}

// history is that of a policy as "number stage".
func (b *bench) history(t testing.TB, id string) []string {
	t.Helper()
	all, err := b.docs.Versions(t.Context(), Resource, id)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(all))
	for i, p := range all {
		if p.Rego != "" {
			t.Error("a listing with a text")
		}
		out[i] = string('0'+rune(p.Version)) + " " + p.Stage
	}
	return out
}

func TestStages(t *testing.T) {
	b := newBench(t)
	b.stage(t, api.StageDraft, ResourcePolicy, allowAll)
	if p, err := b.docs.Get(t.Context(), Resource, ResourcePolicy); err != nil || p.Version != 1 || p.Stage != api.StageDraft || p.InForce {
		t.Fatalf("a lone draft: %+v, %v", p, err)
	}
	if _, err := b.engine.Authorize(t.Context(), Release{Claims: []byte(`{}`)}); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a draft decided: %v", err)
	}
	b.stage(t, "", ResourcePolicy, denyAll)
	b.stage(t, api.StageShadow, ResourcePolicy, allowAll)
	b.stage(t, api.StageDraft, ResourcePolicy, allowAll)
	if got := b.history(t, ResourcePolicy); !slices.Equal(got, []string{"1 draft", "2 enforce", "3 shadow", "4 draft"}) {
		t.Fatal(got)
	}
	if p, err := b.docs.Get(t.Context(), Resource, ResourcePolicy); err != nil || p.Version != 2 || p.Shadow != 3 || p.Latest != 4 || !p.InForce || p.SHA256 != digestOf(denyAll) {
		t.Fatalf("%+v: %v", p, err)
	}
	if b.allows(t, Release{}) {
		t.Fatal("the shadow decided")
	}
	// The caller saw another version than there is.
	if _, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: 1}); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	m, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: 2})
	if err != nil || m.From != 2 || m.To != 3 || m.Policy.Version != 3 || m.Policy.Shadow != 0 {
		t.Fatalf("%+v: %v", m, err)
	}
	if !b.allows(t, Release{}) {
		t.Fatal("the promoted version does not decide")
	}
	for name, c := range map[string]api.StageChange{
		"in force already":    {To: api.StageEnforce, Version: 3, Target: 3},
		"shadow of itself":    {To: api.StageShadow, Version: 3, Target: 3},
		"no shadow":           {To: api.StageDraft, Version: 3, Target: 4},
		"nowhere":             {To: "production", Version: 3},
		"rollback elsewhere":  {To: api.StageShadow, Version: 3, Rollback: true},
		"rollback to a draft": {To: api.StageEnforce, Version: 3, Rollback: true, Target: 4},
	} {
		if _, err := b.move(t, ResourcePolicy, c); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, err = b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: 3, Rollback: true}); err != nil || m.From != 3 || m.To != 2 {
		t.Fatalf("%+v: %v", m, err)
	}
	if got := b.history(t, ResourcePolicy); !slices.Equal(got, []string{"1 draft", "2 enforce", "3 retired", "4 draft"}) {
		t.Fatal(got)
	}
	if _, err = b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: 2, Rollback: true}); !errors.Is(err, ErrRequest) {
		t.Fatalf("nothing was before version 2: %v", err)
	}
}

func TestDeletionIsPartOfTheHistory(t *testing.T) {
	b := newBench(t)
	b.stage(t, "", ResourcePolicy, allowAll)
	b.stage(t, api.StageShadow, ResourcePolicy, denyAll)
	if err := b.docs.Delete(t.Context(), Resource, ResourcePolicy, "me", 1, unaudited); err != nil {
		t.Fatal(err)
	}
	if got := b.history(t, ResourcePolicy); !slices.Equal(got, []string{"1 retired", "2 draft", "3 deleted"}) {
		t.Fatal(got)
	}
	if _, err := b.docs.Get(t.Context(), Resource, ResourcePolicy); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if p, err := b.docs.Version(t.Context(), Resource, ResourcePolicy, 1); err != nil || p.Rego != allowAll {
		t.Fatalf("%+v: %v", p, err)
	}
	if all, err := b.docs.List(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("%+v: %v", all, err)
	}
	if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
		t.Fatal(err)
	}
	if _, err := b.docs.Get(t.Context(), Resource, ResourcePolicy); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a start brought a deleted policy back: %v", err)
	}
	if _, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Target: 3}); !errors.Is(err, ErrRequest) {
		t.Fatalf("a deletion was enforced: %v", err)
	}
	if m, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Rollback: true}); err != nil || m.To != 1 {
		t.Fatalf("%+v: %v", m, err)
	}
	if !b.allows(t, Release{}) {
		t.Fatal("the restored version does not decide")
	}
}

func TestRequiredStages(t *testing.T) {
	b := newBench(t)
	b.docs.set.RequireStages = true
	if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.StageRequired {
			t.Errorf("%s: %v", what, err)
		}
	}
	p := api.Policy{Kind: "resource", ID: ResourcePolicy, Version: -1, Rego: denyAll}
	_, err := b.docs.Put(t.Context(), p, unaudited)
	refused("direct write", err)
	draft := b.stage(t, api.StageDraft, ResourcePolicy, denyAll)
	_, err = b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: -1, Target: draft.Version})
	refused("draft into force", err)
	if _, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageShadow, Version: -1, Target: draft.Version}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.move(t, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: -1, Rollback: true}); err != nil {
		t.Fatalf("a rollback was held up: %v", err)
	}
}

func TestPromotionIsHeldUpByWhatItWouldAllow(t *testing.T) {
	b := newBench(t)
	b.stage(t, "", ResourcePolicy, denyAll)
	b.stage(t, api.StageShadow, ResourcePolicy, allowAll)
	impact := func(context.Context, Kind, string, int64) (api.Tally, error) { return api.Tally{NewlyAllowed: 3}, nil }
	c := api.StageChange{To: api.StageEnforce, Version: 1}
	_, err := b.docs.Move(t.Context(), Resource, ResourcePolicy, c, impact, unrecorded)
	if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != fault.NewlyAllowed {
		t.Fatal(err)
	}
	c.AllowNewlyAllowed = true
	if m, err := b.docs.Move(t.Context(), Resource, ResourcePolicy, c, impact, unrecorded); err != nil || m.Impact.NewlyAllowed != 3 {
		t.Fatalf("%+v: %v", m, err)
	}
	blind := func(context.Context, Kind, string, int64) (api.Tally, error) {
		return api.Tally{}, errors.New("no corpus")
	}
	b.stage(t, api.StageDraft, ResourcePolicy, allowAll)
	if _, err := b.docs.Move(t.Context(), Resource, ResourcePolicy, api.StageChange{To: api.StageEnforce, Version: -1}, blind, unrecorded); err == nil {
		t.Fatal("promoted without knowing the impact")
	}
}

func TestRetentionKeepsWhatPlaysAPart(t *testing.T) {
	b := newBench(t)
	b.docs = NewDocuments(b.st, time.Now, Settings{MaxVersions: 3})
	b.stage(t, "", ResourcePolicy, denyAll)               // 1, in force to the end
	b.stage(t, api.StageShadow, ResourcePolicy, allowAll) // 2, in the shadow
	for range 4 {
		b.stage(t, api.StageDraft, ResourcePolicy, allowAll)
	}
	if got := b.history(t, ResourcePolicy); !slices.Equal(got, []string{"1 enforce", "2 shadow", "6 draft"}) {
		t.Fatal(got)
	}
	if _, err := b.docs.Version(t.Context(), Resource, ResourcePolicy, 3); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	// One policy's versions are not pruned for another's.
	b.stage(t, "", ResourcePolicy+"/x", denyAll)
	if got := b.history(t, ResourcePolicy); len(got) != 3 {
		t.Fatal(got)
	}
}

func TestNames(t *testing.T) {
	for id, c := range map[string]struct {
		kind           string
		legal, inForce bool
	}{
		"resource-policy":           {"resource", true, true},
		"resource/prod":             {"resource", true, true},
		"resource/prod/keys/disk-1": {"resource", true, true},
		"pkcs11/wrap-key":           {"resource", true, true},
		"mine":                      {"resource", true, false},
		"a/b/c/d/e/f/g/h":           {"resource", true, true},
		"a/b/c/d/e/f/g/h/i":         {"resource", false, false},
		"resource/versions":         {"resource", true, true},
		"resource//x":               {"resource", false, false},
		"resource/../x":             {"resource", false, false},
		"a@1":                       {"resource", false, false},
		"default_cpu":               {"attestation", true, true},
		"default_nvidia-dpu":        {"attestation", true, true},
		"strict_gpu":                {"attestation", true, true},
		"other_gpu":                 {"attestation", true, false},
		"default":                   {"attestation", true, false},
		"default_tpu":               {"attestation", true, false},
		"a/b":                       {"attestation", false, false},
	} {
		_, err := ParseName(c.kind, id)
		if (err == nil) != c.legal || (err == nil && InForce(Kind(c.kind), id, "strict") != c.inForce) {
			t.Errorf("%s/%s: %v, in force %v", c.kind, id, err, InForce(Kind(c.kind), id, "strict"))
		}
	}
}

func TestTheLongestNameDecides(t *testing.T) {
	b := newBench(t)
	only := func(who string) string {
		return "package policy\n\nallow if data.query.who == \"" + who + "\"\n"
	}
	b.put(t, Resource, ResourcePolicy, only("default"))
	b.put(t, Resource, "resource/prod", only("repo"))
	b.put(t, Resource, "resource/prod/keys", only("type"))
	b.put(t, Resource, "resource/prod/keys/disk-1", only("tag"))
	b.put(t, Resource, "pkcs11/wrap-key", only("plugin"))
	b.stage(t, api.StageDraft, "resource/test", allowAll)
	for path, want := range map[string]string{
		"resource prod keys disk-1":        "tag",
		"resource prod keys disk-10":       "type",
		"resource prod certs disk-1":       "repo",
		"resource production keys disk-1":  "default",
		"resource test keys disk-1":        "default", // a draft has no say
		"pkcs11 wrap-key":                  "plugin",
		"pkcs11 resource prod keys":        "default",
		"external prod keys disk-1":        "default",
		"external 1 2 3 4 5 6 7 8 9 10 11": "default",
		"sample":                           "default",
	} {
		words := strings.Fields(path)
		for _, who := range []string{"tag", "type", "repo", "default", "plugin"} {
			r := Release{Plugin: words[0], Path: words[1:], Query: map[string]string{"who": who}}
			if got := b.allows(t, r); got != (who == want) {
				t.Errorf("%s asked by %s: %v", path, who, got)
			}
		}
	}
	d, err := b.engine.Authorize(t.Context(), Release{Plugin: "resource", Path: []string{"prod", "keys", "x"}, Claims: []byte(`{}`)})
	if err != nil || d.Policy != "resource/resource/prod/keys@1" {
		t.Fatalf("%+v: %v", d, err)
	}
	x, err := b.engine.ExplainRelease(t.Context(), Release{Plugin: "resource", Path: []string{"prod", "keys", "x"}, Claims: []byte(`{}`)})
	if err != nil || x.Policy != d.Policy {
		t.Fatalf("explained by another: %+v, %v", x, err)
	}
	if err := b.docs.Delete(t.Context(), Resource, "resource/prod/keys", "me", -1, unaudited); err != nil {
		t.Fatal(err)
	}
	if !b.allows(t, Release{Plugin: "resource", Path: []string{"prod", "keys", "x"}, Query: map[string]string{"who": "repo"}}) {
		t.Fatal("the next longest does not decide after a deletion")
	}
}
