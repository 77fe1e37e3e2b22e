package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/architecture.md is the map: each package has a room on it, its own or the
// one of a package above it, and each package that it names is there. Commands
// have their own page, and what only tests use (packages named ...test) none.
func TestMapIsTrue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	rooms := map[string][]string{}
	span := regexp.MustCompile("`([a-z0-9][a-z0-9/-]*)`")
	module := ""
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			module = name
			continue
		} else if strings.HasPrefix(line, "## ") {
			module = ""
		}
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			rooms[module] = append(rooms[module], strings.TrimSuffix(m[1], "/"))
		}
	}
	for module := range mayImport {
		if module == "." || module == "tests" {
			continue
		}
		named := rooms[module]
		for pkg := range strings.Lines(goIn(t, module, "list", "-f", "{{if .GoFiles}}{{.ImportPath}}{{end}}", "./...")) {
			pkg = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(pkg), path+"/"+module), "/")
			if pkg == "" || strings.HasPrefix(pkg, "cmd/") || strings.HasSuffix(pkg, "test") {
				continue
			}
			room := pkg
			for room != "." && room != "internal" && !slices.Contains(named, room) {
				room = filepath.Dir(room)
			}
			if room == "." || room == "internal" {
				t.Errorf("docs/architecture.md: the section of %s has no `%s`", module, pkg)
			}
		}
		for _, name := range named {
			if !strings.Contains(name, "/") {
				continue // also a word of another kind
			}
			_, here := os.Stat(filepath.Join(root, module, name))
			_, there := os.Stat(filepath.Join(root, name)) // of another module
			if here != nil && there != nil {
				t.Errorf("docs/architecture.md: the section of %s names `%s`, which is not there", module, name)
			}
		}
	}
}
