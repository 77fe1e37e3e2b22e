package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (b *bench) recorded(t testing.TB) []api.Decision {
	t.Helper()
	if err := b.engine.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := b.docs.Decisions(t.Context(), time.Time{}, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// claims of a token of a guest; all but the status is new each time.
func claims(status string, n int) json.RawMessage {
	return fmt.Appendf(nil, `{"iat":%[2]d,"exp":%[2]d,"jti":"id-%[2]d","submods":{"cpu0":{"ear.status":%[1]q,
		"ear.veraison.annotated-evidence":{"report_data":"%[2]d","snp":{"measurement":"aa","report_id":"%[2]d","nested":{"nonce":%[2]d}},
		"runtime_data_claims":{"nonce":"%[2]d","tee-pubkey":{"kty":"EC"}},"init_data_claims":{"nonce":"mine","jti":"mine"}}}}}`, status, n)
}

const affirmingOnly = `package policy

default allow := false

allow if input.submods.cpu0["ear.status"] == "affirming"
`

func TestDecisionsAreRecordedOnceForEachInput(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, affirmingOnly)
	path := []string{"prod", "keys", "1"}
	for i := range 20 {
		b.allows(t, Release{Plugin: "resource", Path: path, Claims: claims("affirming", i)})
		b.allows(t, Release{Plugin: "resource", Path: path, Claims: claims("warning", i)})
	}
	b.allows(t, Release{Plugin: "resource", Path: []string{"prod", "keys", "2"}, Claims: claims("warning", 1)})
	all := b.recorded(t)
	if len(all) != 3 {
		t.Fatalf("%d decisions: %+v", len(all), all)
	}
	total := int64(0)
	for _, d := range all {
		total += d.Count
		if d.Policy != "resource/resource-policy@1" || d.Verdict.Allow != strings.Contains(string(d.Input), "affirming") || d.First.After(d.Last) {
			t.Errorf("%+v", d)
		}
		for _, gone := range []string{"iat", "id-", "report_data", "report_id", "tee-pubkey", `"nested":{"`} {
			if strings.Contains(string(d.Input), gone) {
				t.Errorf("%s is recorded: %s", gone, d.Input)
			}
		}
		if !strings.Contains(string(d.Input), `"init_data_claims":{"jti":"mine","nonce":"mine"}`) {
			t.Errorf("the members of init-data are the guest's own: %s", d.Input)
		}
	}
	if total != 41 {
		t.Errorf("%d decisions counted", total)
	}
	// The next write merges.
	b.allows(t, Release{Plugin: "resource", Path: path, Claims: claims("warning", 99)})
	if all = b.recorded(t); len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	first, err := b.docs.Decisions(t.Context(), time.Time{}, "", 2)
	if err != nil || len(first) != 2 {
		t.Fatalf("%+v: %v", first, err)
	}
	rest, err := b.docs.Decisions(t.Context(), time.Time{}, "resource/"+first[1].Digest, 2)
	if err != nil || len(rest) != 1 || rest[0].Digest != all[2].Digest {
		t.Fatalf("%+v: %v", rest, err)
	}
	if none, err := b.docs.Decisions(t.Context(), time.Now().Add(time.Hour), "", 2); err != nil || len(none) != 0 {
		t.Fatalf("%+v: %v", none, err)
	}
}

func TestDecisionsAreBounded(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, denyAll)
	for i := range 250 {
		b.allows(t, Release{Plugin: "resource", Path: []string{"prod", "keys", fmt.Sprint(i)}})
	}
	if err := b.engine.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := b.engine.recorder.cfg
	if err := b.docs.pruneDecisions(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if all := b.recorded(t); len(all) != cfg.MaxDecisions {
		t.Fatalf("%d are kept", len(all))
	}
	cfg.Now = func() time.Time { return time.Now().Add(2 * cfg.KeepDecisions) }
	if err := b.docs.pruneDecisions(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if all := b.recorded(t); len(all) != 0 {
		t.Fatalf("%d are kept for ever", len(all))
	}
	huge := json.RawMessage(`{"log":"` + strings.Repeat("x", maxDecision) + `"}`)
	b.allows(t, Release{Plugin: "resource", Path: []string{"a"}, Claims: huge})
	if all := b.recorded(t); len(all) != 0 {
		t.Fatal("a huge input was recorded")
	}
}

// A full queue loses decisions and says so; it keeps nobody waiting.
func TestOverloadDropsAndCounts(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, denyAll)
	b.stage(t, api.StageShadow, ResourcePolicy, allowAll)
	r := b.engine.recorder
	// The goroutine is busy with a write that waits, and the queue fills.
	slow := &stalling{Store: b.st, reached: make(chan struct{}), release: make(chan struct{})}
	b.docs.st = slow
	b.allows(t, Release{})
	settled := make(chan error, 1)
	go func() { settled <- b.engine.Settle(context.Background()) }()
	<-slow.reached
	for range queueLength + 10 {
		r.observe(observation{engine: b.engine, q: Question{Kind: Resource}, shadow: &shadowed{ResourcePolicy, 2, digestOf(allowAll)}})
	}
	if n := b.engine.Dropped(); n < 10 {
		t.Errorf("%d dropped", n)
	}
	close(slow.release)
	if err := errors.Join(<-settled, b.engine.Settle(t.Context())); err != nil {
		t.Fatal(err)
	}
	if rep, err := b.docs.Shadow(t.Context(), Resource, ResourcePolicy); err != nil || rep.Dropped < 10 {
		t.Fatalf("%+v: %v", rep, err)
	}
}

// stalling is a store whose first write waits.
type stalling struct {
	store.Store
	once             sync.Once
	reached, release chan struct{}
}

func (s *stalling) Update(ctx context.Context, f func(store.Tx) error) error {
	s.once.Do(func() {
		close(s.reached)
		<-s.release
	})
	return s.Store.Update(ctx, f)
}

func TestShadow(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, affirmingOnly)
	if _, err := b.docs.Shadow(t.Context(), Resource, ResourcePolicy); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	shadow := b.stage(t, api.StageShadow, ResourcePolicy, `package policy

default allow := false

allow if input.submods.cpu0["ear.status"] == "warning"

allow := {1: 2} if input.broken
`)
	ask := func(status string, want bool) {
		t.Helper()
		if got := b.allows(t, Release{Plugin: "resource", Path: []string{"a"}, Claims: claims(status, 1)}); got != want {
			t.Errorf("%s: %v", status, got)
		}
	}
	ask("affirming", true)
	ask("affirming", true)
	ask("warning", false)
	ask("none", false)
	if err := b.engine.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep, err := b.docs.Shadow(t.Context(), Resource, ResourcePolicy)
	want := api.Tally{Unchanged: 1, NewlyAllowed: 1, NewlyDenied: 2}
	if err != nil || rep.Tally != want || len(rep.Samples) != 3 || rep.Policy != "resource/resource-policy@2" {
		t.Fatalf("%+v: %v", rep, err)
	}
	// A shadow that newly allows holds its promotion up, even when the record
	// of what it was asked is gone.
	impact, err := b.engine.Impact(t.Context(), Resource, ResourcePolicy, shadow.Version)
	if err != nil || impact.NewlyAllowed != 1 {
		t.Fatalf("%+v: %v", impact, err)
	}
	// Another shadow starts from nothing.
	b.stage(t, api.StageShadow, ResourcePolicy, allowAll)
	if rep, err := b.docs.Shadow(t.Context(), Resource, ResourcePolicy); err != nil || rep.Tally != (api.Tally{}) {
		t.Fatalf("%+v: %v", rep, err)
	}
}

// A shadow under a longer name than any policy in force is asked as well: it
// would decide.
func TestShadowOfAPrefix(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, denyAll)
	b.stage(t, api.StageShadow, "resource/prod", allowAll)
	b.allows(t, Release{Plugin: "resource", Path: []string{"prod", "keys", "1"}})
	b.allows(t, Release{Plugin: "resource", Path: []string{"test", "keys", "1"}})
	if err := b.engine.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep, err := b.docs.Shadow(t.Context(), Resource, "resource/prod")
	if err != nil || rep.Tally != (api.Tally{NewlyAllowed: 1}) {
		t.Fatalf("%+v: %v", rep, err)
	}
}

func TestReplay(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, affirmingOnly)
	b.put(t, Resource, "resource/own", allowAll)
	for _, status := range []string{"affirming", "warning", "none"} {
		for _, repo := range []string{"prod", "own"} {
			b.allows(t, Release{Plugin: "resource", Path: []string{repo, "keys", "1"}, Claims: claims(status, 1)})
		}
	}
	replay := func(id string, req api.ReplayRequest) api.ReplayReport {
		t.Helper()
		rep, err := b.engine.Replay(t.Context(), Resource, id, req)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	for name, c := range map[string]struct {
		id, text string
		want     api.Tally
	}{
		"the same":       {ResourcePolicy, affirmingOnly, api.Tally{Unchanged: 3}}, // those of own are not its
		"allow all":      {ResourcePolicy, allowAll, api.Tally{Unchanged: 1, NewlyAllowed: 2}},
		"deny all":       {ResourcePolicy, denyAll, api.Tally{Unchanged: 2, NewlyDenied: 1}},
		"a new prefix":   {"resource/prod", allowAll, api.Tally{Unchanged: 1, NewlyAllowed: 2}},
		"its own prefix": {"resource/own", denyAll, api.Tally{NewlyDenied: 3}},
		"another plugin": {"pkcs11/prod", allowAll, api.Tally{}},
		"errors":         {ResourcePolicy, "package policy\n\nallow := true if input\n\nallow := false if input\n", api.Tally{Errors: 3}},
	} {
		rep := replay(c.id, api.ReplayRequest{Rego: c.text})
		if rep.Tally != c.want {
			t.Errorf("%s: %+v", name, rep.Tally)
		}
		if int64(len(rep.Flips)) != c.want.NewlyAllowed+c.want.NewlyDenied+c.want.Errors {
			t.Errorf("%s: %d flips", name, len(rep.Flips))
		}
	}
	if rep := replay(ResourcePolicy, api.ReplayRequest{Rego: allowAll, Since: time.Now().Add(time.Hour)}); rep.Tally != (api.Tally{}) {
		t.Errorf("%+v", rep.Tally)
	}
	draft := b.stage(t, api.StageDraft, ResourcePolicy, denyAll)
	if rep := replay(ResourcePolicy, api.ReplayRequest{Target: draft.Version}); rep.Tally.NewlyDenied != 1 {
		t.Errorf("%+v", rep.Tally)
	}
	for name, req := range map[string]api.ReplayRequest{
		"nothing": {}, "both": {Rego: denyAll, Target: 1},
	} {
		if _, err := b.engine.Replay(t.Context(), Resource, ResourcePolicy, req); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	rep, err := newHost(t).ReplayOffline(t.Context(), Resource, ResourcePolicy, denyAll, b.recorded(t), time.Time{}, b.refs)
	// Offline nobody knows that own had a policy of its own.
	if err != nil || rep.Tally.NewlyDenied != 4 || rep.Baseline != baselineRecorded {
		t.Errorf("%+v: %v", rep.Tally, err)
	}
}

func TestReplayOfAttestations(t *testing.T) {
	b := newBench(t)
	text := func(limit int) string {
		return fmt.Sprintf("package policy\n\ntrust_claims := {\"executables\": 3, \"hardware\": h}\n\ndefault h := 97\n\nh := 2 if input.snp.svn >= %d\n", limit)
	}
	b.put(t, Attestation, DefaultCPU, text(5))
	for _, svn := range []int{3, 5, 7} {
		if _, err := b.engine.Appraise(t.Context(), DefaultCPU, fmt.Appendf(nil, `{"snp":{"svn":%d},"report_data":"r"}`, svn)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.engine.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int]api.Tally{
		5: {Unchanged: 3}, 6: {Unchanged: 2, NewlyDenied: 1}, 1: {Unchanged: 2, NewlyAllowed: 1},
	} {
		rep, err := b.engine.Replay(t.Context(), Attestation, DefaultCPU, api.ReplayRequest{Rego: text(limit)})
		if err != nil || rep.Tally != want {
			t.Errorf("limit %d: %+v, %v", limit, rep.Tally, err)
		}
	}
	changed := strings.Replace(text(5), "h := 97", "h := 96", 1)
	if rep, err := b.engine.Replay(t.Context(), Attestation, DefaultCPU, api.ReplayRequest{Rego: changed}); err != nil || rep.Tally.Changed != 1 {
		t.Errorf("%+v: %v", rep.Tally, err)
	}
	if rep, err := b.engine.Replay(t.Context(), Attestation, "default_gpu", api.ReplayRequest{Rego: text(1)}); err != nil || rep.Tally != (api.Tally{}) {
		t.Errorf("another class: %+v, %v", rep.Tally, err)
	}
}
