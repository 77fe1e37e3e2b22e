package policy

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

func TestAtLeast(t *testing.T) {
	for _, tt := range []struct {
		seen, least string
		want        bool
	}{
		{`24`, `24`, true},
		{`25`, `24`, true},
		{`23`, `24`, false},
		{`"1.55.40"`, `"1.55"`, true},
		{`"1.55"`, `"1.55.1"`, false},
		{`"1.9"`, `"1.10"`, false},
		{`"10"`, `9`, true},
		{`24`, `[20, 22]`, true},
		{`21`, `[20, 22]`, false},
		{`21`, `[]`, false},
		{`21`, `null`, false},
		{`null`, `1`, false},
		{`"a"`, `1`, false},
		{`"1.a"`, `"1"`, false},
		{`"-1"`, `0`, false},
		{`1.5`, `"1.10"`, false},
		{`[2]`, `1`, false},
		{`"1."`, `1`, false},
	} {
		got, err := AtLeast(rego.BuiltinContext{}, ast.MustParseTerm(tt.seen), ast.MustParseTerm(tt.least))
		if err != nil || got.Value.Compare(ast.Boolean(tt.want)) != 0 {
			t.Errorf("version_at_least(%s, %s) is %v, %v", tt.seen, tt.least, got, err)
		}
	}
}

func FuzzAtLeast(f *testing.F) {
	f.Add("1.2.3", "1.2")
	f.Add("", "999999999999999999999999999999999999999999")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, okx := parseVersion(ast.String(a))
		y, oky := parseVersion(ast.String(b))
		if okx && oky && x.compare(y) != -y.compare(x) {
			t.Fatalf("%q and %q compare differently the other way round", a, b)
		}
	})
}
