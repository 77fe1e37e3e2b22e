package policy

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// token of a guest in which two containers run.
const pod = `{"submods":{"cpu0":{"ear.status":"affirming","ear.appraisal-policy-id":"default","ear.veraison.annotated-evidence":{
	"snp":{"measurement":"aa"},"init_data_claims":{"agent_policy_claims":{"containers":[
		{"OCI":{"Annotations":{"io.kubernetes.cri.image-name":"reg.example/app@sha256:1111","io.kubernetes.cri.sandbox-namespace":"shop"}}},
		{"OCI":{"Annotations":{"io.kubernetes.cri.image-name":"reg.example/side@sha256:2222","io.kubernetes.cri.sandbox-namespace":"shop"}}}]}}}}}}`

// Each template allows what it is meant for, and nothing that differs in the
// one thing that it is about; the refusal is explained by that thing.
func TestTemplates(t *testing.T) {
	type probe struct {
		sets    map[string][]string
		bad     [2]string // replaced in the token: what, by what
		explain string    // claim
	}
	all := map[string]probe{
		"allow-all":     {},
		"deny-all":      {},
		"affirming":     {nil, [2]string{`"affirming"`, `"warning"`}, "cpu0.ear.status"},
		"measured-set":  {map[string][]string{"references": {"team/guests", "other"}}, [2]string{`"aa"`, `"bb"`}, "measurement"},
		"image-digest":  {map[string][]string{"digests": {"sha256:2222", "sha256:1111"}}, [2]string{"sha256:2222", "sha256:3333"}, "container_images"},
		"namespace":     {map[string][]string{"namespaces": {"shop"}}, [2]string{`"shop"}}}]`, `"dark"}}}]`}, "namespaces"},
		"own-namespace": {nil, [2]string{`"shop"}}}]`, `"dark"}}}]`}, "namespaces"},
		"appraised-by":  {map[string][]string{"policies": {"default", "strict"}}, [2]string{`"default"`, `"lax"`}, "cpu0.ear.appraisal-policy-id"},
	}
	templates, err := Templates()
	if err != nil || len(templates) != len(all) {
		t.Fatalf("%d templates: %v", len(templates), err)
	}
	for _, tpl := range templates {
		t.Run(tpl.Name, func(t *testing.T) {
			c, ok := all[tpl.Name]
			if !ok || tpl.Summary == "" || tpl.Kind != Resource {
				t.Fatalf("%+v", tpl)
			}
			if got := slices.Sorted(maps.Keys(tpl.Sets)); !slices.Equal(got, slices.Sorted(maps.Keys(c.sets))) {
				t.Errorf("sets %v", got)
			}
			text, err := tpl.Fill(c.sets)
			if err != nil {
				t.Fatal(err)
			}
			b := newBench(t)
			b.value(t, "team/guests", `["aa"]`)
			b.put(t, Resource, ResourcePolicy, text)
			r := Release{Plugin: "resource", Path: []string{"shop", "keys", "1"}, Claims: json.RawMessage(pod)}
			if got := b.allows(t, r); got != (tpl.Name != "deny-all") {
				t.Errorf("the good guest: %v", got)
			}
			if c.explain == "" {
				return
			}
			r.Claims = json.RawMessage(strings.Replace(pod, c.bad[0], c.bad[1], 1))
			if string(r.Claims) == pod || b.allows(t, r) {
				t.Error("the bad guest is allowed")
			}
			x, err := b.engine.ExplainRelease(t.Context(), r)
			if err != nil || len(x.Findings) != 1 || x.Findings[0].Claim != c.explain || x.Line == 0 {
				t.Errorf("%+v: %v", x, err)
			}
			r.Claims = json.RawMessage(strings.Replace(pod, `"ear.status"`, `"`+token.SimulatedRoot+`":"lab","ear.status"`, 1))
			if b.allows(t, r) {
				t.Error("a simulated root is allowed")
			}
			r.Claims = json.RawMessage(`{"submods":{}}`)
			if b.allows(t, r) {
				t.Error("nobody is allowed")
			}
		})
	}
	if _, err := templates[0].Fill(map[string][]string{"nothing": {"x"}}); err == nil {
		t.Error("a set that is not there was filled")
	}
	hostile, err := Template{Rego: "a := {\"x\"}\n", Sets: map[string]string{"a": ""}}.Fill(map[string][]string{"a": {"\"}\nallow := true\n#"}})
	if err != nil || strings.Count(hostile, "\n") != 1 {
		t.Errorf("%q: %v", hostile, err)
	}
}

func TestOutline(t *testing.T) {
	rules, err := Outline(Resource, `package policy

default allow := false

allow if {
	data.plugin == "resource"
	known
}

allow if input.admin

known if input.snp.measurement in query_reference_value("m")

known if {
	some n in ["a", "b"]
	query_reference_value(n) == input[n]
}
`)
	if err != nil || len(rules) != 2 {
		t.Fatalf("%+v: %v", rules, err)
	}
	allow, known := rules[0], rules[1]
	if allow.Rule != "allow" || !slices.Equal(allow.Lines, []int{3, 5, 10}) || !slices.Equal(allow.Reads, []string{"data.plugin", "input.admin"}) {
		t.Errorf("%+v", allow)
	}
	if !slices.Equal(known.Reads, []string{"input", "input.snp.measurement"}) || !slices.Equal(known.References, []string{"(computed)", "m"}) {
		t.Errorf("%+v", known)
	}
	if _, err := Outline(Resource, "package policy\n\nallow if x\n"); err == nil {
		t.Error("a broken text has an outline")
	}
}
