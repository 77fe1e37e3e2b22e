package policy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/refvalue"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
)

type bench struct {
	st     store.Store
	docs   *Documents
	refs   *refvalue.Registry
	engine *Engine
}

func newBench(t testing.TB) *bench {
	t.Helper()
	st, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	docs, refs := NewDocuments(st, time.Now, Settings{}), refvalue.Open(st, time.Now)
	return &bench{st: st, docs: docs, refs: refs, engine: newHost(t).Engine(docs, refs)}
}

var (
	defaultCPU      = textOf(DefaultCPU)
	defaultResource = textOf(ResourcePolicy)
)

// textOf returns a shipped policy.
func textOf(id string) string {
	for _, p := range Defaults() {
		if p.ID == id {
			return p.Rego
		}
	}
	panic("no default " + id)
}

func newHost(t testing.TB) *Host {
	t.Helper()
	h := NewHost(HostConfig{
		Now: time.Now, Logger: slog.New(slog.DiscardHandler), Record: true, MaxDecisions: 100, KeepDecisions: time.Hour, PerSecond: 10_000,
	})
	t.Cleanup(h.Close)
	return h
}

func unaudited(store.Tx, api.Policy) error { return nil }

func (b *bench) put(t testing.TB, kind Kind, id, text string) api.Policy {
	t.Helper()
	p, err := b.docs.Put(t.Context(), api.Policy{Kind: string(kind), ID: id, Version: -1, Rego: text}, unaudited)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) value(t testing.TB, name, value string) {
	t.Helper()
	if _, err := b.refs.Put(t.Context(), api.RefValue{Name: name, Version: -1, Value: json.RawMessage(value)}); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) allows(t testing.TB, r Release) bool {
	t.Helper()
	if r.Claims == nil {
		r.Claims = json.RawMessage(`{}`)
	}
	d, err := b.engine.Authorize(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allow
}

func TestVersions(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	p := api.Policy{Kind: "resource", ID: "p", Rego: "package policy", Author: "me"}
	one, err := b.docs.Put(ctx, p, unaudited)
	if err != nil || one.Version != 1 || one.Time.IsZero() {
		t.Fatalf("%+v: %v", one, err)
	}
	for name, version := range map[string]int64{"again as new": 0, "stale": 7} {
		p.Version = version
		if _, err := b.docs.Put(ctx, p, unaudited); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.Version = 1
	if two, err := b.docs.Put(ctx, p, unaudited); err != nil || two.Version != 2 {
		t.Fatalf("%+v: %v", two, err)
	}
	p.Version = -1
	three, err := b.docs.Put(ctx, p, unaudited)
	if err != nil || three.Version != 3 {
		t.Fatalf("%+v: %v", three, err)
	}
	got, err := b.docs.Get(ctx, Resource, "p")
	if err != nil || got.Version != 3 || got.Author != "me" || got.Rego != p.Rego {
		t.Fatalf("%+v: %v", got, err)
	}
	if _, err := b.docs.Get(ctx, Attestation, "p"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("kinds share names: %v", err)
	}
	if err := b.docs.Delete(ctx, Resource, "p", "me", 2, unaudited); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("stale delete: %v", err)
	}
	if err := b.docs.Delete(ctx, Resource, "p", "me", 3, unaudited); err != nil {
		t.Fatal(err)
	}
	if err := b.docs.Delete(ctx, Resource, "p", "me", -1, unaudited); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}
	p.Version = 0
	if four, err := b.docs.Put(ctx, p, unaudited); err != nil || four.Version <= 3 {
		t.Fatalf("a version came twice: %+v, %v", four, err)
	}
}

func TestFailedEntryUndoesTheChange(t *testing.T) {
	b := newBench(t)
	broken := errors.New("no audit")
	_, err := b.docs.Put(t.Context(), api.Policy{Kind: "resource", ID: "p", Rego: "package policy"},
		func(store.Tx, api.Policy) error { return broken })
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := b.docs.Get(t.Context(), Resource, "p"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("the policy is there without its entry: %v", err)
	}
}

func TestInstallDefaultsKeepsOwnPolicies(t *testing.T) {
	b := newBench(t)
	own := b.put(t, Resource, ResourcePolicy, "package policy\n\nimport rego.v1\n\nallow := false\n")
	for range 2 {
		if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := b.docs.Get(t.Context(), Resource, ResourcePolicy); err != nil || p.Rego != own.Rego || p.Version != own.Version {
		t.Fatalf("%+v: %v", p, err)
	}
	if p, err := b.docs.Get(t.Context(), Attestation, DefaultCPU); err != nil || p.Rego != defaultCPU || p.Version != 1 {
		t.Fatalf("%+v: %v", p, err)
	}
	all, err := b.docs.List(t.Context())
	if err != nil || len(all) != len(Defaults()) || all[0].Rego != "" {
		t.Fatalf("%+v: %v", all, err)
	}
}

func TestRefusedTexts(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not rego":       {"package policy\n\nallow if {\n", "4:"},
		"empty":          {"", "empty module"},
		"other package":  {"package other\n\nallow := true\n", "1:1"},
		"deeper package": {"package policy.inner\n\nallow := true\n", "1:1"},
		"old syntax":     {"package policy\n\nallow { true }\n", "3:"},
		"http":           {"package policy\n\nallow if http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}).status_code == 200\n", "http.send"},
		"environment":    {"package policy\n\nallow if opa.runtime().env.HOME\n", "opa.runtime"},
		"dns":            {"package policy\n\nallow if net.lookup_ip_addr(\"localhost\")\n", "net.lookup_ip_addr"},
		"parse":          {"package policy\n\nallow if rego.parse_module(\"a\", \"package a\")\n", "rego.parse_module"},
		"trace":          {"package policy\n\nallow if trace(\"x\")\n", "trace"},
		"unsafe":         {"package policy\n\nallow if x > 1\n", "3:"},
		"wrong call":     {"package policy\n\nallow if query_reference_value(1)\n", "3:"},
		"too large":      {"package policy\n#" + strings.Repeat("x", MaxSize), "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			var syntax *SyntaxError
			if err := Check(Resource, c.text); !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The documents of one request must not be seen by another, however the
// policy reaches for them.
func TestRequestDocuments(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, `package policy

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	data["resource-path"] == ["r", "t", "g"]
	data["resource-path"][2] == "g"
	data.query.k == "v"
	count(data.query) == 1
	not data.nothing
}
`)
	good := Release{Plugin: "resource", Path: []string{"r", "t", "g"}, Query: map[string]string{"k": "v"}}
	for range 2 {
		if !b.allows(t, good) {
			t.Fatal("the request's documents are not seen")
		}
		for name, bad := range map[string]Release{
			"plugin":   {Plugin: "x", Path: good.Path, Query: good.Query},
			"path":     {Plugin: "resource", Path: []string{"r", "t", "h"}, Query: good.Query},
			"no query": {Plugin: "resource", Path: good.Path},
			"more":     {Plugin: "resource", Path: good.Path, Query: map[string]string{"k": "v", "l": "w"}},
		} {
			if b.allows(t, bad) {
				t.Fatalf("%s: allowed", name)
			}
		}
	}
}

func TestOnlyTrueAllows(t *testing.T) {
	b := newBench(t)
	for text, want := range map[string]bool{
		"allow := true": true, "allow := false": false, `allow := "true"`: false, "allow := 1": false,
		"allow := [true]": false, "other := true": false, "allow := null": false,
	} {
		b.put(t, Resource, ResourcePolicy, "package policy\n\nimport rego.v1\n\n"+text+"\n")
		if got := b.allows(t, Release{Plugin: "resource"}); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestRefusesRatherThanDecides(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	if d, err := b.engine.Authorize(ctx, Release{Claims: json.RawMessage(`{}`)}); err == nil || d.Allow {
		t.Fatalf("no policy: %+v, %v", d, err)
	}
	b.engine.runner.Deadline = 50 * time.Millisecond
	for name, text := range map[string]string{
		"runaway":  "allow if count([1 | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i == j + 200000]) == 0",
		"conflict": "allow := true if input\n\nallow := false if input",
	} {
		b.put(t, Resource, ResourcePolicy, "package policy\n\nimport rego.v1\n\n"+text+"\n")
		if d, err := b.engine.Authorize(ctx, Release{Claims: json.RawMessage(`{}`)}); !errors.Is(err, ErrEvaluation) || d.Allow {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	b.put(t, Resource, ResourcePolicy, "package policy\n\nimport rego.v1\n\ndefault allow := true\n\nallow := false if query_reference_value(\"x\") != null\n")
	b.engine.refs = failing{b.refs}
	if d, err := b.engine.Authorize(ctx, Release{Claims: json.RawMessage(`{}`)}); !errors.Is(err, ErrEvaluation) || d.Allow {
		t.Errorf("unknown reference values: %+v, %v", d, err)
	}
	if d, err := b.engine.Authorize(ctx, Release{Claims: json.RawMessage(`{`)}); err == nil || d.Allow {
		t.Errorf("malformed claims: %+v, %v", d, err)
	}
}

type failing struct{ References }

func (failing) Query(context.Context, string) (json.RawMessage, error) {
	return nil, errors.New("the store is gone")
}

func TestAppraise(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		text string
		ok   bool
		want string // a member of the vector
	}{
		"undefined":      {"x := 1", true, "hardware=0"},
		"some":           {`trust_claims := {"hardware": 2}`, true, "hardware=2"},
		"negative":       {`trust_claims := {"hardware": -97}`, true, "hardware=-97"},
		"unknown claim":  {`trust_claims := {"hardwear": 2}`, false, ""},
		"out of range":   {`trust_claims := {"hardware": 128}`, false, ""},
		"fraction":       {`trust_claims := {"hardware": 2.5}`, false, ""},
		"text":           {`trust_claims := {"hardware": "2"}`, false, ""},
		"not an object":  {`trust_claims := [2]`, false, ""},
		"bad extensions": {"trust_claims := {}\n\nextensions := {}", false, ""},
		"no name":        {"trust_claims := {}\n\nextensions := [{\"key\": 1, \"value\": 1}]", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b.put(t, Attestation, DefaultCPU, "package policy\n\nimport rego.v1\n\n"+c.text+"\n")
			a, err := b.engine.Appraise(t.Context(), DefaultCPU, json.RawMessage(`{}`))
			if (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrEvaluation)) {
				t.Fatalf("%+v: %v", a, err)
			}
			if name, value, _ := strings.Cut(c.want, "="); err == nil && render(json.Number(value)) != render(a.Vector[name]) {
				t.Fatalf("%+v", a.Vector)
			}
		})
	}
	b.put(t, Attestation, DefaultCPU, "package policy\n\nextensions := [{\"name\": \"a\", \"key\": -1, \"value\": {\"b\": 1}}, {\"name\": \"n\", \"key\": 2, \"value\": null}]\n")
	a, err := b.engine.Appraise(t.Context(), DefaultCPU, json.RawMessage(`{}`))
	if err != nil || len(a.Extensions) != 1 || a.Extensions[0].Name != "a" || len(a.Vector) != 8 {
		t.Fatalf("%+v: %v", a, err)
	}
}

func TestNewVersionBitesAtOnce(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, "package policy\n\nallow := true\n")
	if !b.allows(t, Release{}) {
		t.Fatal("not allowed")
	}
	b.put(t, Resource, ResourcePolicy, "package policy\n\nallow := false\n")
	if b.allows(t, Release{}) {
		t.Fatal("the old version decided")
	}
}

func TestExplainAppraisal(t *testing.T) {
	b := newBench(t)
	if err := b.docs.InstallDefaults(t.Context(), unaudited); err != nil {
		t.Fatal(err)
	}
	b.value(t, "snp_launch_measurement", `["2f19aabbccddeeff01", "77"]`)
	input := json.RawMessage(`{"snp":{"measurement":"2f19aabbccddeeff02","simulated_root":"lab","policy_debug_allowed":false,"policy_migrate_ma":false,
		"reported_tcb_bootloader":1,"reported_tcb_microcode":2,"reported_tcb_snp":3,"reported_tcb_tee":4}}`)
	x, err := b.engine.ExplainAppraisal(t.Context(), DefaultCPU, input)
	if err != nil {
		t.Fatal(err)
	}
	byClaim := map[string]api.Finding{}
	for _, f := range x.Findings {
		byClaim[f.Claim] = f
	}
	m := byClaim["measurement"]
	if m.Seen != "2f19aabbccddeeff02" || !slices.Equal(m.Wanted, []string{"2f19aabbccddeeff01", "77"}) || m.Nearest != "snp_launch_measurement" {
		t.Errorf("measurement: %+v", m)
	}
	if f := byClaim["simulated_root"]; f.Seen != "lab" || len(f.Wanted) != 0 {
		t.Errorf("simulated root: %+v", f)
	}
	if f := byClaim["reported_tcb_snp"]; f.Seen != "3" {
		t.Errorf("tcb: %+v", f)
	}
	if _, there := byClaim["policy_debug_allowed"]; there || len(x.Findings) != 6 {
		t.Errorf("findings: %+v", x.Findings)
	}
	if x.Policy != "attestation/default_cpu@1" {
		t.Errorf("policy %s", x.Policy)
	}
	lines := strings.Split(defaultCPU, "\n")
	if (x.Rule != "executables" && x.Rule != "hardware") || x.Line < 1 || !strings.Contains(strings.Join(lines[x.Line-4:x.Line], "\n"), x.Rule) {
		t.Errorf("rule %s, line %d: %q", x.Rule, x.Line, lines[x.Line-1])
	}
}

// A policy without an explain rule is explained by the values it asked for,
// and the line is that of the expression that failed.
func TestExplainForeignPolicy(t *testing.T) {
	b := newBench(t)
	b.put(t, Resource, ResourcePolicy, `package policy

import rego.v1

default allow := false

allow if {
	data.query.ok == "yes"
	input.svn in query_reference_value("my_svn")
	input.level in query_reference_value("my_level")
}
`)
	b.value(t, "my_svn", `[1, 2]`)
	b.value(t, "my_level", `["high"]`)
	r := Release{Query: map[string]string{"ok": "yes"}, Claims: json.RawMessage(`{"svn":7,"level":"high"}`)}
	x, err := b.engine.ExplainRelease(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if x.Rule != "allow" || x.Line != 9 || len(x.Findings) != 1 || x.Findings[0].Claim != "svn" || x.Findings[0].Seen != "7" ||
		!slices.Equal(x.Findings[0].Wanted, []string{"1", "2"}) {
		t.Fatalf("%+v", x)
	}
	r.Query = nil
	if x, err = b.engine.ExplainRelease(t.Context(), r); err != nil || x.Line < 7 || x.Line > 8 {
		t.Fatalf("%+v: %v", x, err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("package policy\n\nallow := true\n")
	f.Add(defaultResource)
	f.Fuzz(func(_ *testing.T, text string) { _ = Check(Resource, text) })
}
