package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/tester"
)

// The shipped policies have their own tests, in Rego beside them. Each pair is
// run alone: both policies declare package policy.
func TestDefaultsInRego(t *testing.T) {
	for name, least := range map[string]int{"default_cpu": 20, "resource-policy": 9} {
		t.Run(name, func(t *testing.T) {
			modules := map[string]*ast.Module{}
			for _, file := range []string{name + ".rego", name + "_test.rego"} {
				text, err := os.ReadFile(filepath.Join("defaults", file))
				if err != nil {
					t.Fatal(err)
				}
				modules[file] = ast.MustParseModule(string(text))
			}
			builtin := &tester.Builtin{
				Decl: &ast.Builtin{Name: queryFunction.Name, Decl: queryFunction.Decl},
				Func: rego.Function1(queryFunction, queryReferenceValue),
			}
			results, err := tester.NewRunner().RaiseBuiltinErrors(true).
				AddCustomBuiltins([]*tester.Builtin{builtin}).SetModules(modules).RunTests(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			ran := 0
			for r := range results {
				ran++
				if !r.Pass() {
					t.Errorf("%s: %v", r.Name, r.Error)
				}
			}
			if ran < least {
				t.Errorf("only %d tests ran", ran)
			}
		})
	}
}

// What is shipped is read by people: it is laid out as opa fmt would.
func TestShippedTextsAreFormatted(t *testing.T) {
	for _, pattern := range []string{"defaults/*.rego", "templates/*.rego"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			want, err := format.SourceWithOpts(f, text, format.Opts{RegoVersion: ast.RegoV1})
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(text) {
				t.Errorf("%s is not formatted; it should be\n%s", f, want)
			}
		}
	}
}

func TestDefaultsCompileAndAcceptNoSimulatedRoot(t *testing.T) {
	for _, p := range Defaults() {
		if err := Check(Kind(p.Kind), p.Rego); err != nil {
			t.Errorf("%s/%s: %v", p.Kind, p.ID, err)
		}
		if !strings.Contains(p.Rego, "accepted_simulated_roots := set()\n") {
			t.Errorf("%s/%s does not start with an empty set of simulated roots", p.Kind, p.ID)
		}
	}
}
