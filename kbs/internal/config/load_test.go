package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func written(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPrecedence(t *testing.T) {
	dir := written(t, map[string]string{
		"kbs.toml":           "[attestation_service]\ntimeout = 11\n[attestation_service.attestation_token_broker]\nduration_min = 11\n[logging]\nlevel = 'warn'\nformat = 'text'\n[limits]\nburst_seconds = 2\n",
		"conf.d/10-one.toml": "[attestation_service.attestation_token_broker]\nduration_min = 12\n[logging]\nlevel = 'error'\nformat = 'json'\n",
		"conf.d/20-two.toml": "[logging]\nlevel = 'debug'\n",
		"conf.d/README":      "not a drop-in",
	})
	vars := env(map[string]string{"KBS_HTTP_SERVER_SOCKETS": "127.0.0.1:1, 127.0.0.1:2", "KBS_LIMITS_BURST_SECONDS": "3", "KBS_HTTP_SERVER_INSECURE_HTTP": "true", "RUST_LOG": "warn", "KBS_TRACING_SAMPLE_RATIO": "0.5"})
	l, err := Read(filepath.Join(dir, "kbs.toml"), vars, Set{"--state", "state_dir", "/s"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][2]string{
		"attestation_service.timeout":                               {"11", "kbs.toml:2"},
		"attestation_service.attestation_token_broker.duration_min": {"12", "10-one.toml:2"},
		"logging.format":            {`"json"`, "10-one.toml:5"},
		"logging.level":             {`"warn"`, "env KBS_LOGGING_LEVEL"},
		"limits.burst_seconds":      {"3", "env KBS_LIMITS_BURST_SECONDS"},
		"http_server.sockets":       {`[]string{"127.0.0.1:1", "127.0.0.1:2"}`, "env KBS_HTTP_SERVER_SOCKETS"},
		"http_server.insecure_http": {"true", "env KBS_HTTP_SERVER_INSECURE_HTTP"},
		"tracing.sample_ratio":      {"0.5", "env KBS_TRACING_SAMPLE_RATIO"},
		"state_dir":                 {`"/s"`, "flag --state"},
		"http_server.admin_sockets": {`[]string{"127.0.0.1:8081"}`, ""},
	} {
		if got := flatten(l.Config)[key]; got != want[0] || l.Origins[key] != want[1] {
			t.Errorf("%s is %s from %q, want %s from %q", key, got, l.Origins[key], want[0], want[1])
		}
	}
	raw, err := l.Dump()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"timeout = 11 # kbs.toml:2", "sockets = ['127.0.0.1:1', '127.0.0.1:2'] # env KBS_HTTP_SERVER_SOCKETS", "metrics_sockets = ['127.0.0.1:8082'] # default", "state_dir = '/s' # flag --state"} {
		if !strings.Contains(strings.Join(strings.Fields(string(raw)), " "), strings.Join(strings.Fields(line), " ")) {
			t.Errorf("the dump lacks %q:\n%s", line, raw)
		}
	}
	again := Default(env(nil))
	if err := Parse(raw, &again); err != nil || !reflect.DeepEqual(flatten(again), flatten(l.Config)) {
		t.Errorf("the dump does not read back: %v", err)
	}
	if len(l.Files) != 3 {
		t.Errorf("files %q", l.Files)
	}
}

// The same configuration in three syntaxes, and the same mistake.
func TestSyntaxes(t *testing.T) {
	good := map[string]string{
		"kbs.toml": "[http_server]\nsockets = ['127.0.0.1:1']\n[verifier.snp]\ninsecure_simulated_roots = [{name = 'lab', path = 'r.pem'}]\n[tracing]\nsample_ratio = 1\n[[plugins]]\nname = 'resource'\n",
		"kbs.yaml": "http_server:\n  sockets: ['127.0.0.1:1']\nverifier: {snp: {insecure_simulated_roots: [{name: lab, path: r.pem}]}}\ntracing:\n  sample_ratio: 1\nplugins:\n  - name: resource\n",
		"kbs.json": "{\"http_server\": {\"sockets\": [\"127.0.0.1:1\"]},\n\"verifier\": {\"snp\": {\"insecure_simulated_roots\": [{\"name\": \"lab\", \"path\": \"r.pem\"}]}}, \"tracing\": {\"sample_ratio\": 1},\n\t\"plugins\": [{\"name\": \"resource\"}]}",
	}
	dir := written(t, good)
	want, err := Load(filepath.Join(dir, "kbs.toml"), env(nil))
	if err != nil || want.Verifier.SNP.InsecureSimulatedRoots[0].Path != filepath.Join(dir, "r.pem") || len(want.Plugins) != 1 {
		t.Fatalf("%+v: %v", want, err)
	}
	for name := range good {
		if got, err := Load(filepath.Join(dir, name), env(nil)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{
		"bad.toml": "\n[limits]\nburst_second = 3\n", "bad.yaml": "\nlimits:\n  burst_second: 3\n", "bad.json": "{\"limits\":\n\n{\"burst_second\": 3}}",
	} {
		dir := written(t, map[string]string{name: text})
		_, err := Load(filepath.Join(dir, name), env(nil))
		if err == nil || !strings.Contains(err.Error(), "line 3: limits.burst_second: unknown key; did you mean limits.burst_seconds?") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"alias.yaml": "a: &x [1]\nb: *x\n", "twice.yaml": "logging: {}\nlogging: {}\n", "twice.json": `{"logging":{},"logging":{}}`, "merge.yaml": "<<: {logging: {}}\n",
		"two.yaml": "logging: {}\n---\nlogging: {}\n", "list.json": "[]", "rest.json": "{} {}", "deep.json": strings.Repeat("[", 100), "cut.json": `{"logging":`, "list.yaml": "- 1\n", "tabs.yaml": "\t\n\ta: b: c\n",
	} {
		dir := written(t, map[string]string{name: text})
		if _, err := Load(filepath.Join(dir, name), env(nil)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, name := range []string{"empty.toml", "empty.yaml"} {
		if _, err := Load(filepath.Join(written(t, map[string]string{name: ""}), name), env(nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	c := Default(env(nil))
	err := Parse([]byte("burst_seconds = 1\n[http_server]\nsocket = []\ninsecure_http = 'yes'\n[admin]\ninsecure_api = true\n[[plugins]]\nname = 1\n[[plugins]]\nnam = 'x'\n[logging]\nlevel.x = 3\n"), &c)
	for _, want := range []string{
		"line 1: burst_seconds: unknown key; did you mean limits.burst_seconds?",
		"line 3: http_server.socket: unknown key; did you mean http_server.sockets?",
		"line 4: http_server.insecure_http: must be true or false, is a text",
		"line 6: admin.insecure_api: unknown key: the admin API cannot be opened",
		"line 8: plugins[0].name: must be a text, is the number 1",
		"line 10: plugins[1].nam: unknown key",
		"line 12: logging.level: must be a text, is a table",
	} {
		if err == nil || !slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
}

func TestWrongVariables(t *testing.T) {
	for name, value := range map[string]string{"KBS_LIMITS_BURST_SECONDS": "many", "KBS_HTTP_SERVER_INSECURE_HTTP": "perhaps", "KBS_TRACING_SAMPLE_RATIO": "x", "KBS_HTTP_SERVER_SOCKETS": "nowhere", "KBS_VERIFIER_SNP_REVOCATION_LISTS": "x", "KBS_LOGGING_LEVEL": "loud"} {
		if _, err := Load("", env(map[string]string{name: value})); err == nil {
			t.Errorf("%s=%s was accepted", name, value)
		}
	}
	for _, harmless := range []string{"kbs=debug,actix=off", "off", ""} {
		if c, err := Load("", env(map[string]string{"RUST_LOG": harmless})); err != nil || c.Logging.Level != "info" {
			t.Errorf("RUST_LOG=%s: %s, %v", harmless, c.Logging.Level, err)
		}
	}
}

// No two keys share a variable.
func TestVariablesAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, k := range Keys() {
		if other, ok := seen[EnvName(k)]; ok {
			t.Errorf("%s and %s are both %s", k, other, EnvName(k))
		}
		seen[EnvName(k)] = k
	}
}

// Every member of every section can be given in a file: whoever adds one of a
// type that the binder does not know learns it here.
func TestEveryMemberBinds(t *testing.T) {
	var sample func(typ reflect.Type) any
	sample = func(typ reflect.Type) any {
		switch typ.Kind() {
		case reflect.Struct:
			out := map[string]any{}
			for key, f := range fieldsOf(typ) {
				out[key] = sample(f.Type)
			}
			return out
		case reflect.Pointer:
			return sample(typ.Elem())
		case reflect.Slice:
			return []any{sample(typ.Elem())}
		case reflect.Map:
			return map[string]any{"x": sample(typ.Elem())}
		case reflect.Bool:
			return true
		case reflect.Int, reflect.Int64:
			return int64(7)
		case reflect.Float64:
			return 0.5
		default:
			return "text"
		}
	}
	var c Config
	b := binder{origins: Origins{}}
	if err := b.bind(sample(reflect.TypeFor[Config]()).(map[string]any), &c); err != nil {
		t.Error(err)
	}
	leaves("", reflect.ValueOf(c), func(path string, _ reflect.StructField, v reflect.Value) {
		if v.IsZero() || strings.HasSuffix(path, ".") {
			t.Errorf("%s was not set", path)
		}
	})
	walk(reflect.TypeFor[Config](), "", func(path string, f reflect.StructField) {
		if keyOf(f) == "" {
			t.Errorf("%s %s has no toml tag", path, f.Name)
		}
	})
}

func TestForeignKeysAreForeign(t *testing.T) {
	for key, text := range foreign {
		if slices.Contains(Keys(), key) {
			t.Errorf("%s has a meaning now: take it out of foreign", key)
		}
		if text == "" {
			t.Errorf("%s is not explained", key)
		}
	}
}

func TestChanges(t *testing.T) {
	a := Default(env(nil))
	b := a
	b.Logging.Level, b.Limits.Burst, b.HTTPServer.Sockets = "debug", 3, []string{"127.0.0.1:1"}
	b.Verifier.SNP.InsecureSimulatedRoots = []SimulatedRoot{{Name: "lab", Path: "x"}}
	at, restart := Changes(a, b)
	if fmt.Sprint(at) != "[limits.burst_seconds logging.level]" || !slices.Contains(restart, "http_server.sockets") || !slices.Contains(restart, "verifier.snp.insecure_simulated_roots[0].path") {
		t.Errorf("at once %q, restart %q", at, restart)
	}
	inForce := Loaded{Config: a}.Adopt(Loaded{Config: b, Files: []string{"x"}})
	if at, left := Changes(inForce.Config, b); at != nil || !slices.Equal(left, restart) || inForce.Logging.Level != "debug" || len(inForce.Files) != 1 {
		t.Errorf("after a reload %q and %q are left", at, left)
	}
	if at, restart := Changes(a, a); at != nil || restart != nil {
		t.Errorf("nothing changed, yet %q %q", at, restart)
	}
}

func TestSchemaKnowsEveryKey(t *testing.T) {
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Properties map[string]struct {
			Properties map[string]struct {
				Type, Description string
				Default           any
			}
		}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	p := s.Properties["limits"].Properties["burst_seconds"]
	if p.Type != "integer" || p.Default != 10.0 || !strings.HasPrefix(p.Description, "Burst is how many") {
		t.Errorf("%+v", p)
	}
	page, err := Page()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"`KBS_HTTP_SERVER_SOCKETS`", "## verifier.snp", "| `level` | string | `\"info\"` |", "↻"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func FuzzSyntaxes(f *testing.F) {
	for _, ext := range []string{".toml", ".yaml", ".json"} {
		f.Add(ext, []byte("logging: {level: x}"))
		f.Add(ext, []byte(`{"logging":{"level":[{}]}}`))
		f.Add(ext, []byte("[logging]\nlevel.a = 1\n[[plugins]]\n[plugins.x]\n"))
	}
	f.Fuzz(func(t *testing.T, ext string, raw []byte) {
		doc, err := parse("x"+ext, raw)
		if err != nil {
			return
		}
		c := Default(env(nil))
		b := binder{lines: doc.lines, origins: Origins{}}
		if b.bind(doc.tree, &c) != nil {
			return
		}
		text, err := c.Dump()
		if err != nil {
			t.Fatal(err)
		}
		again := Default(env(nil))
		if err := Parse(text, &again); err != nil {
			t.Fatalf("the dump does not read back: %v\n%s", err, text)
		}
	})
}
