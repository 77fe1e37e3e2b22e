package policylang

import (
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

func compiled(t *testing.T, body string) *ast.Compiler {
	t.Helper()
	caps := Capabilities(&ast.Builtin{Name: "lookup", Decl: ast.BuiltinMap["count"].Decl}, &ast.Builtin{Name: "larger", Decl: ast.BuiltinMap["count"].Decl})
	m, err := ast.ParseModuleWithOpts("x.rego", "package p\n\n"+body+"\n", ast.ParserOptions{Capabilities: caps, RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	c := ast.NewCompiler().WithCapabilities(caps)
	if c.Compile(map[string]*ast.Module{"x.rego": m}); c.Failed() {
		t.Fatal(c.Errors)
	}
	return c
}

// An answer is remembered only where it cannot be another one the next time.
func TestSteady(t *testing.T) {
	for body, want := range map[string]bool{
		`allow if input.a == 1`:                                               true,
		`allow if startswith(lower(input.a), "b")`:                            true,
		`allow if regex.match("^a+$", input.a)`:                               true,
		`allow if larger(input.a) > 1`:                                        true,
		`allow if lookup(input.a) > 1`:                                        false,
		`allow if time.now_ns() > 5`:                                          false,
		`allow if count([1 | time.now_ns() > 5]) > 0`:                         false,
		`allow if crypto.x509.parse_and_verify_certificates(input.c)[0]`:      false,
		`allow if io.jwt.decode_verify(input.t, {"secret": "x"})[0]`:          false,
		"allow if f(1)\n\nf(x) if {\n\tsome y in [time.now_ns()]\n\ty > x\n}": false,
		"allow if input.a\n\nother := time.now_ns()":                          false,
	} {
		if got := Steady(compiled(t, body), "lookup"); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}

// The builtins by whose names steadiness is told are still called that.
func TestVaries(t *testing.T) {
	for _, name := range []string{"time.now_ns", "rand.intn", "crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options"} {
		if b := ast.BuiltinMap[name]; b == nil || !Varies(b) || steadyFamily(name) {
			t.Errorf("%s counts as steady, or is no more", name)
		}
	}
}

// What reaches outside does not compile.
func TestForbidden(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1"})`, `opa.runtime()`, `net.lookup_ip_addr("localhost")`, `rand.intn("x", 5)`, `trace("x")`,
	} {
		_, err := ast.ParseModuleWithOpts("x.rego", "package p\n\nx := "+call+"\n", ast.ParserOptions{Capabilities: Capabilities(), RegoVersion: ast.RegoV1})
		if err == nil {
			c := ast.NewCompiler().WithCapabilities(Capabilities())
			c.Compile(map[string]*ast.Module{"x.rego": ast.MustParseModule("package p\n\nx := " + call + "\n")})
			if c.Failed() {
				err = c.Errors
			}
		}
		if err == nil {
			t.Errorf("%s compiles", call)
		} else if s, ok := errors.AsType[*SyntaxError](Syntax(err)); !ok || !strings.Contains(s.Error(), "undefined function") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// A compiler that panics blames the text.
func TestCompilerPanics(t *testing.T) {
	_, err := Compile(func() (int, error) { panic("a defect") })
	if s, ok := errors.AsType[*SyntaxError](err); !ok || !strings.Contains(s.Error(), "a defect") {
		t.Error(err)
	}
	if n, err := Compile(func() (int, error) { return 7, nil }); n != 7 || err != nil {
		t.Error(n, err)
	}
}
