package reference

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/lab"
)

// PlatformsPage is written by hand, but for the tables in it.
const PlatformsPage = "docs/reference/platforms.md"

// block is a part of the page that is generated.
var block = regexp.MustCompile(`(?s)<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->`)

// Platforms renders the page anew, for the sources at root: what each verifier
// says of its simulator's evidence, and what the default policies make of it.
func Platforms(ctx context.Context, root string) (string, error) {
	page, err := os.ReadFile(filepath.Join(root, PlatformsPage))
	if err != nil {
		return "", err
	}
	rules, err := defaultRules(filepath.Join(root, "kbs/internal/policy/defaults"))
	if err != nil {
		return "", err
	}
	tables := map[string]string{}
	for _, p := range lab.Platforms() {
		if tables[string(p)], err = platformTables(ctx, p, rules[p]); err != nil {
			return "", err
		}
	}
	seen := map[string]int{}
	out := block.ReplaceAllStringFunc(string(page), func(old string) string {
		name := block.FindStringSubmatch(old)[1]
		seen[name]++
		return fmt.Sprintf("<!-- generated: %s -->\n%s<!-- end -->", name, tables[name])
	})
	for name := range tables {
		if seen[name] != 1 {
			return "", fmt.Errorf("%s has %d generated parts for %s, want one", PlatformsPage, seen[name], name)
		}
	}
	if len(seen) != len(tables) {
		return "", fmt.Errorf("%s has generated parts for %v", PlatformsPage, slices.Sorted(maps.Keys(seen)))
	}
	return out, nil
}

func platformTables(ctx context.Context, p measure.Platform, rules []rule) (string, error) {
	dir, err := os.MkdirTemp("", "vouchsafe-reference-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := lab.Open(p, dir)
	if err != nil {
		return "", err
	}
	all, err := l.Verdicts(ctx)
	if err != nil {
		return "", err
	}
	claims, err := claimTypes(all[0].Claims)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| check | of the simulator's evidence |\n|---|---|\n")
	for _, c := range all[0].Checks {
		outcome := string(c.Outcome)
		if c.Reason != "" {
			outcome += ": " + c.Reason
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Name, outcome)
	}
	if err := writeRules(&b, p, rules, claims); err != nil {
		return "", err
	}
	b.WriteString("\n<details><summary>Claims</summary>\n\n| claim | type |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, claims[name])
	}
	b.WriteString("\n</details>\n")
	return b.String(), nil
}

// writeRules writes what the default policy compares, by the claims' whole
// names. A claim that the verifier does not make is an error.
func writeRules(b *strings.Builder, p measure.Platform, rules []rule, claims map[string]string) error {
	if len(rules) == 0 {
		return fmt.Errorf("no default policy compares anything of %s", p)
	}
	b.WriteString("\n| the default policy compares | with | for |\n|---|---|---|\n")
	for _, r := range rules {
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(claims)), func(c string) bool { return c != r.claim && !strings.HasSuffix(c, "."+r.claim) })
		if len(names) != 1 {
			return fmt.Errorf("the default policy compares %q of %s, which is the claims %v", r.claim, p, names)
		}
		with := "`" + r.value + "`"
		if r.reference {
			with = "reference value `" + r.value + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", names[0], with, r.aspect)
	}
	return nil
}

// number stands for the digits of claims that are one for each register.
var number = regexp.MustCompile(`^(pcr)?[0-9]+$`)

// claimTypes lists the claims with their types in JSON. "[]" is each element of
// a list, "N" each of numbered claims.
func claimTypes(c measure.Claims) (map[string]string, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	out := map[string]string{}
	addTypes(out, "", tree)
	return out, nil
}

func addTypes(out map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			out[path] = "object"
		}
		for name, member := range v {
			if number.MatchString(name) && !strings.HasPrefix(name, "pcr") {
				name = "N"
			}
			addTypes(out, strings.TrimPrefix(path+"."+name, "."), member)
		}
	case []any:
		if len(v) == 0 {
			out[path] = "list"
		}
		for _, element := range v {
			addTypes(out, path+"[]", element)
		}
	case string:
		out[path] = "text"
	case bool:
		out[path] = "boolean"
	default:
		out[path] = "number"
	}
}
