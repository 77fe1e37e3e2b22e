package audit

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// sources parses all Go files of the module but tests.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	out := map[string]*ast.File{}
	files := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		out[path], err = parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		return err
	})
	if err != nil || len(out) < 50 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

// isA reports whether an expression is the type api.NAME.
func isA(e ast.Expr, name string) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name == name
	case *ast.SelectorExpr:
		return x.Sel.Name == name
	}
	return false
}

// kindParameters finds the functions that take a kind: which of their
// parameters, by name of the function.
func kindParameters(files map[string]*ast.File) map[string][]int {
	out := map[string][]int{}
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			at := 0
			for _, p := range fn.Type.Params.List {
				for range max(1, len(p.Names)) {
					if isA(p.Type, "AuditKind") {
						out[fn.Name.Name] = append(out[fn.Name.Name], at)
					}
					at++
				}
			}
		}
	}
	return out
}

// Every kind that the code writes is a constant of package api, and all of
// those are in the table that the reference is made from.
func TestEveryKindIsInTheTable(t *testing.T) {
	known := map[string]bool{}
	for _, k := range api.AuditKinds() {
		if known[string(k.Kind)] || k.Meaning == "" || !strings.HasSuffix(k.Meaning, ".") {
			t.Errorf("%s: a row of the table is unique, and has a sentence", k.Kind)
		}
		known[string(k.Kind)] = true
	}
	// Stages of requests become kinds; each of them must be one.
	for _, stage := range []string{"auth", "attest", "release", "guest", "admin"} {
		if !known[stage] {
			t.Errorf("the stage %s is no kind", stage)
		}
	}
	files := sources(t)
	takes := kindParameters(files)
	if len(takes["policyEntry"]) != 1 {
		t.Errorf("found no function that takes a kind: %v", takes)
	}
	literal := func(path string, e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok {
			t.Errorf("%s: the kind %s is not a constant of package api", path, l.Value)
		}
	}
	for path, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.CompositeLit:
				if isA(x.Type, "AuditEntry") {
					for _, m := range x.Elts {
						if kv, ok := m.(*ast.KeyValueExpr); ok && isA(kv.Key, "Kind") {
							literal(path, kv.Value)
						}
					}
				}
			case *ast.CallExpr:
				name := ""
				switch fn := x.Fun.(type) {
				case *ast.Ident:
					name = fn.Name
				case *ast.SelectorExpr:
					name = fn.Sel.Name
				}
				for _, at := range takes[name] {
					if at < len(x.Args) {
						literal(path, x.Args[at])
					}
				}
				if isA(x.Fun, "AuditKind") {
					literal(path, x.Args[0])
				}
			}
			return true
		})
	}
	for path, f := range files {
		if !strings.HasPrefix(filepath.ToSlash(path), "../../api/") {
			continue
		}
		for _, value := range constants(f, "AuditKind") {
			if !known[value] {
				t.Errorf("%s: the kind %q is not in the table", path, value)
			}
		}
	}
}

// constants are the values of those of a type.
func constants(f *ast.File, typeName string) []string {
	var out []string
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if v.Type == nil || !isA(v.Type, typeName) {
				continue
			}
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err == nil && !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return out
}
