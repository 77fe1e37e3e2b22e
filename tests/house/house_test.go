// Package house holds the tests of the repository's own shape: who may import
// whom, how large a file may grow, and which library versions must never come
// in. The rules are those of docs/architecture.md and CONTRIBUTING.md.
package house

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

const path = "github.com/vouchsafe-cc/vouchsafe"

// Who may import whom: data flows one way. The root module (fault, secret) is
// everybody's.
var mayImport = map[string][]string{
	".":           {},
	"measure":     {},
	"image":       {},
	"kbs":         {"measure", "image"},
	"kbs-pkcs11":  {"kbs/api"},
	"guest-agent": {"measure", "image", "kbs/api", "kbs/client", "kbs/policylang", "kbs/sealed"},
	"rootfs":      {"measure", "image/erofs", "image/verity"},
	"tests":       {"measure", "image", "kbs", "guest-agent", "rootfs"},
}

func TestBorders(t *testing.T) {
	for module, allowed := range mayImport {
		out := goIn(t, module, "list", "-deps", "-test", "-f", "{{if not .Standard}}{{.ImportPath}} {{join .Imports \",\"}} {{join .TestImports \",\"}}{{end}}", "./...")
		for line := range strings.Lines(out) {
			pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
			home, inside := moduleOf(pkg)
			if !inside || home != module {
				continue
			}
			for _, imp := range strings.FieldsFunc(imports, func(r rune) bool { return r == ',' || r == ' ' }) {
				to, ours := moduleOf(imp)
				if !ours || to == module || to == "." {
					continue
				}
				rel := strings.TrimPrefix(imp, path+"/")
				if !slices.ContainsFunc(allowed, func(a string) bool { return rel == a || strings.HasPrefix(rel, a+"/") }) {
					t.Errorf("%s imports %s: %s may import only %v", pkg, imp, module, allowed)
				}
			}
		}
	}
}

// The second guest is an independent witness: it must not share code with what
// it tests.
func TestSecondGuestIsIndependent(t *testing.T) {
	out := goIn(t, "tests", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./internal/secondguest")
	for pkg := range strings.FieldsSeq(out) {
		if strings.HasPrefix(pkg, path) && !strings.HasSuffix(pkg, "/secondguest") || strings.HasPrefix(pkg, "github.com/go-jose/") {
			t.Errorf("the second guest uses %s", pkg)
		}
	}
}

func moduleOf(pkg string) (string, bool) {
	pkg, _, _ = strings.Cut(pkg, " ")
	if pkg != path && !strings.HasPrefix(pkg, path+"/") {
		return "", false
	}
	top, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(pkg, path), "/"), "/")
	if _, ok := mayImport[top]; ok {
		return top, true
	}
	return ".", true
}

// A file over 600 lines is a room that wants a wall, and nine in ten stay
// within 350.
func TestFileSizes(t *testing.T) {
	var sizes []int
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
			return
		}
		n := lines(t, name)
		sizes = append(sizes, n)
		if n > 600 {
			t.Errorf("%s has %d lines", name, n)
		}
	})
	slices.Sort(sizes)
	if len(sizes) == 0 {
		t.Fatal("no Go files found")
	}
	if p90 := sizes[len(sizes)*9/10]; p90 > 350 {
		t.Errorf("nine in ten files should have at most 350 lines; the 90th percentile is %d", p90)
	}
}

// Versions that fail open, or that need a newer toolchain than ours, must not
// enter any graph: neither a module's own nor the workspace's, where the
// highest version of all modules wins.
func TestTraps(t *testing.T) {
	only := map[string]struct{ version, why string }{
		"github.com/google/go-tdx-guest":      {"v0.3.1", "v0.3.2 pre-releases accept an out-of-date platform with an up-to-date module"},
		"github.com/google/go-sev-guest":      {"v0.15.0", "verified against its checks; look at validate's new options before moving"},
		"github.com/sigstore/sigstore":        {"v1.10.11", "later ones need Go 1.27"},
		"github.com/sigstore/sigstore-go":     {"v1.3.0", "later ones need Go 1.27"},
		"github.com/google/go-tpm-tools":      {"", "lifts go-tdx-guest to a version that fails open"},
		"github.com/diskfs/go-diskfs":         {"", "its squashfs writer loses files"},
		"github.com/containerd/containerd/v2": {"v2.4.2", "the version that was tried"},
		"github.com/open-policy-agent/opa":    {"v1.22.2", "its capabilities list is audited in kbs/internal/policy"},
	}
	dirs := []string{"."}
	for m := range mayImport {
		dirs = append(dirs, m)
	}
	for i, dir := range dirs {
		env := "GOWORK=off"
		if i == 0 {
			env = "GOWORK=" // the workspace
		}
		for _, m := range modules(t, dir, env) {
			rule, ok := only[m.Path]
			if ok && m.Version != rule.version {
				t.Errorf("%s (%s) has %s %s, wanted %q: %s", dir, env, m.Path, m.Version, rule.version, rule.why)
			}
		}
	}
}

type module struct{ Path, Version string }

// modules lists the modules whose packages are linked into dir's packages or
// tests.
func modules(t *testing.T, dir, env string) []module {
	t.Helper()
	args := []string{"list", "-deps", "-test", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}"}
	if strings.HasSuffix(env, "=") {
		for m := range mayImport {
			args = append(args, path+strings.TrimSuffix("/"+strings.TrimPrefix(m, "."), "/")+"/...")
		}
	} else {
		args = append(args, "./...")
	}
	out := goIn(t, dir, append([]string{env}, args...)...)
	seen := map[string]module{}
	for line := range strings.Lines(out) {
		if p, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			seen[p] = module{p, v}
		}
	}
	var list []module
	for _, m := range seen {
		list = append(list, m)
	}
	return list
}

// Every direct dependency has a line in DEPENDENCIES.md, and no module has
// more of them than a reader can know.
func TestDependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "DEPENDENCIES.md"))
	if err != nil {
		t.Fatal(err)
	}
	for m := range mayImport {
		out := goIn(t, m, "GOWORK=off", "mod", "edit", "-json")
		var file struct {
			Require []struct {
				Path     string
				Indirect bool
			}
		}
		if err := json.Unmarshal([]byte(out), &file); err != nil {
			t.Fatal(err)
		}
		imports := strings.Fields(goIn(t, m, "list", "-f", "{{join .Imports \"\\n\"}}", "./..."))
		direct := 0
		for _, r := range file.Require {
			if r.Indirect || strings.HasPrefix(r.Path, path) {
				continue
			}
			if slices.ContainsFunc(imports, func(i string) bool { return i == r.Path || strings.HasPrefix(i, r.Path+"/") }) {
				direct++ // what only tests need costs a user nothing
			}
			if !strings.Contains(string(text), "`"+r.Path+"`") {
				t.Errorf("%s: %s has no line in DEPENDENCIES.md", m, r.Path)
			}
		}
		limit := 12
		switch m { // ADR 7
		case "kbs":
			limit = 24
		case "image", "tests":
			limit = 16
		case "guest-agent":
			limit = 14
		}
		if direct > limit {
			t.Errorf("%s has %d direct dependencies, the budget is %d", m, direct, limit)
		}
	}
}

// No key is ever committed: they are made when a test runs.
func TestNoPrivateKeys(t *testing.T) {
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".go") { // code names the block types
			return
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		head, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		for _, mark := range []string{"PRIVATE KEY-----\n", "AGE-SECRET-KEY-1"} {
			if strings.Contains(string(head), mark) {
				t.Errorf("%s contains %q", name, mark)
			}
		}
	})
}

func walk(t *testing.T, visit func(string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == ".git" || base == ".cache" || base == "bin" && filepath.Dir(name) == root {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	n := 0
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		n++
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// goIn runs the go command in a folder of the repository; leading arguments of
// the form NAME=value go into its environment.
func goIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	env := os.Environ()
	for len(args) > 0 && strings.Contains(args[0], "=") && !strings.HasPrefix(args[0], "-") {
		env, args = append(env, args[0]), args[1:]
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = filepath.Join(root, dir), env
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go %s in %s: %v\n%s", strings.Join(args, " "), dir, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return string(out)
}
