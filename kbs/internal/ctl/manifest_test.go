package ctl

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

const threeDocuments = `# the first document is empty
---
kind: Policy
metadata: {name: resource/resource-policy, version: 3}
spec:
  rego: |
    package policy
    default allow := false
---
kind: RefValue
metadata: {name: snp_launch_measurement}
spec:
  value: ["2f19", 2026-01-01, 0x1f, 1.50, true, null, {a: "1"}]
  expires: 2027-06-30
---
{"kind": "Resource", "metadata": {"name": "a/b/c"}, "spec": {"valueFile": "secret.bin"}}
`

func TestParseManifests(t *testing.T) {
	all, err := parseManifests([]byte(threeDocuments), "f.yaml", "/dir")
	if err != nil || len(all) != 3 {
		t.Fatalf("%d documents, %v", len(all), err)
	}
	p, err := all[0].policy()
	if err != nil || p.Kind != "resource" || p.ID != "resource-policy" || p.Version != 3 || p.Rego != "package policy\ndefault allow := false\n" {
		t.Errorf("policy %+v, %v", p, err)
	}
	v, err := all[1].refValue()
	if err != nil || string(v.Value) != `["2f19","2026-01-01",31,1.50,true,null,{"a":"1"}]` {
		t.Errorf("reference value %s, %v", v.Value, err)
	}
	if want := time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC); !v.Expires.Equal(want) {
		t.Errorf("a day ends at %v", v.Expires)
	}
	if got := all[2].path(all[2].Spec.ValueFile); got != "/dir/secret.bin" {
		t.Errorf("value file %s", got)
	}
}

// A message to the field's reference value provider is the values in it.
func TestParseMessage(t *testing.T) {
	payload := base64.StdEncoding.EncodeToString([]byte(`{"mr_td":["aa","bb"],"xfam":[1.50]}`))
	all, err := parseManifests([]byte("\n"+`{"version":"0.1.0","type":"sample","payload":"`+payload+`"}`), "f.json", ".")
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []api.RefValue{{Name: "mr_td", Value: []byte(`["aa","bb"]`)}, {Name: "xfam", Value: []byte(`[1.50]`)}} {
		if v, err := all[i].refValue(); err != nil || v.Name != want.Name || string(v.Value) != string(want.Value) || v.Version != 0 {
			t.Errorf("%+v (%s), %v", v, v.Value, err)
		}
	}
	for name, text := range map[string]string{
		"swid": `{"type":"swid","payload":"` + payload + `"}`, "no base64": `{"type":"sample","payload":"*"}`,
	} {
		if _, err := parseManifests([]byte(text), "f.json", "."); err == nil || !strings.Contains(err.Error(), "f.json") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseManifestsRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown member":        {"kind: Policy\nmetadata: {name: resource/a}\nspec: {regoo: x}", "line 3: unknown key regoo"},
		"unknown kind":          {"kind: Secret\nmetadata: {name: a}", `kind is "Secret"`},
		"no kind":               {"metadata: {name: a}", `kind is ""`},
		"no name":               {"kind: Policy\nspec: {rego: x}", "metadata.name is missing"},
		"negative version":      {"kind: Policy\nmetadata: {name: resource/a, version: -1}\nspec: {rego: x}", "negative"},
		"policy without text":   {"kind: Policy\nmetadata: {name: resource/a}", "either spec.rego or spec.regoFile"},
		"policy with two texts": {"kind: Policy\nmetadata: {name: resource/a}\nspec: {rego: x, regoFile: y}", "either"},
		"policy of no kind":     {"kind: Policy\nmetadata: {name: a}\nspec: {rego: x}", "KIND/ID"},
		"foreign member":        {"kind: Policy\nmetadata: {name: resource/a}\nspec: {rego: x, value: 1}", "a Policy has no spec.value"},
		"bad path":              {"kind: Resource\nmetadata: {name: a/../c}\nspec: {valueFile: x}", "three segments"},
		"no value file":         {"kind: Resource\nmetadata: {name: a/b/c}", "spec.valueFile, spec.about or both"},
		"inline secret":         {"kind: Resource\nmetadata: {name: a/b/c}\nspec: {valueFile: x, value: hush}", "has no spec.value"},
		"no value":              {"kind: RefValue\nmetadata: {name: a}", "spec.value is missing"},
		"bad expiry":            {"kind: RefValue\nmetadata: {name: a}\nspec: {value: 1, expires: soon}", "neither a time"},
		"value twice":           {"kind: RefValue\nmetadata: {name: a}\nspec: {value: {x: 1, x: 2}}", "x"},
		"infinite":              {"kind: RefValue\nmetadata: {name: a}\nspec: {value: .inf}", "json"},
		"binary":                {"kind: RefValue\nmetadata: {name: a}\nspec: {value: !!binary aGk=}", "JSON has no !!binary"},
		"number as key":         {"kind: RefValue\nmetadata: {name: a}\nspec: {value: {1: 2}}", "not a string"},
		"alias":                 {"kind: RefValue\nmetadata: {name: a}\nspec: {value: [&x [1], *x]}", "aliases"},
		"deep":                  {"kind: RefValue\nmetadata: {name: a}\nspec: {value: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", "deep"},
		"not YAML":              {"kind: [", "yaml"},
		"a list":                {"- kind: Policy", "yaml"},
		"too many":              {strings.Repeat("---\nkind: RefValue\nmetadata: {name: a}\nspec: {value: 1}\n", maxDocuments+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseManifests([]byte(tt.text), "f.yaml", ".")
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "f.yaml") {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// What -o manifest prints, apply reads as the same object.
func TestManifestRoundTrip(t *testing.T) {
	p := api.Policy{Kind: "resource", ID: "a", Version: 2, Rego: "package policy\n\n# tab:\tend \nallow if \"x\" == `y`\n"}
	v := api.RefValue{Name: "x/y", Version: 9, Value: json.RawMessage(`{"b":["2f19","yes","0x10",1e400,-0.0],"a":12345678901234567890}`),
		Expires: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, m := range []*manifest{policyManifest(p), refValueManifest(v)} {
		b, err := m.yaml()
		if err != nil {
			t.Fatal(err)
		}
		all, err := parseManifests(b, "x", ".")
		if err != nil || len(all) != 1 {
			t.Fatalf("%v\n%s", err, b)
		}
		if m.Kind == docPolicy {
			if got, err := all[0].policy(); err != nil || got != p {
				t.Errorf("%+v, %v\n%s", got, err, b)
			}
			continue
		}
		got, err := all[0].refValue()
		if err != nil || string(got.Value) != string(v.Value) || got.Version != 9 || !got.Expires.Equal(v.Expires) {
			t.Errorf("%+v (%s), %v\n%s", got, got.Value, err, b)
		}
	}
}

func TestReadManifests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "kind: RefValue\nmetadata: {name: b}\nspec: {value: 1}", "a.json": `{"kind":"RefValue","metadata":{"name":"a"},"spec":{"value":1}}`,
		"notes.txt": "kind: nothing", "sub.yaml/x": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &cli{stdio: Stdio{In: strings.NewReader("kind: RefValue\nmetadata: {name: a}\nspec: {value: 2}")}}
	all, err := c.readManifests([]string{dir})
	if err != nil || len(all) != 2 || all[0].Metadata.Name != "a" || all[1].dir != dir {
		t.Fatalf("%+v, %v", all, err)
	}
	if _, err := c.readManifests([]string{dir, "-"}); err == nil || !strings.Contains(err.Error(), "refvalue/a comes twice") {
		t.Fatalf("got %v", err)
	}
	if _, err := c.readManifests([]string{t.TempDir()}); err == nil {
		t.Fatal("an empty directory was accepted")
	}
}

// Accepted documents survive being written and read again.
func FuzzParseManifests(f *testing.F) {
	f.Add([]byte(threeDocuments))
	f.Add([]byte(`{"kind":"RefValue","metadata":{"name":"a"},"spec":{"value":{"a":[1,"x",null]}}}`))
	f.Add([]byte("kind: RefValue\nmetadata: &a {name: a}\nspec: {value: -.5e3}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parseManifests(raw, "f", ".")
		if err != nil {
			return
		}
		for i := range all {
			if all[i].Kind != docRefValue {
				continue
			}
			v, err := all[i].refValue()
			if err != nil || !json.Valid(v.Value) {
				t.Fatalf("accepted %q with value %q: %v", raw, v.Value, err)
			}
			b, err := refValueManifest(v).yaml()
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseManifests(b, "again", ".")
			if err != nil || len(again) != 1 {
				t.Fatalf("%q becomes %q: %v", raw, b, err)
			}
			w, err := again[0].refValue()
			if err != nil || !sameJSON(v.Value, w.Value) || w.Name != v.Name {
				t.Fatalf("%s becomes %s: %v", v.Value, w.Value, err)
			}
		}
	})
}
