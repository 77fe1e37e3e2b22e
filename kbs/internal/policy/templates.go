package policy

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed templates/*.rego
var templateFiles embed.FS

// Template is a policy by intent: a text that works as it is, with sets of
// strings that an administrator fills in.
type Template struct {
	Name    string            `json:"name"`
	Kind    Kind              `json:"kind"`
	Summary string            `json:"summary"`
	Sets    map[string]string `json:"sets"` // name of a set: what belongs into it
	Rego    string            `json:"rego"`
}

// ErrTemplate says that a template has no such name or set.
var ErrTemplate = errors.New("policy: template")

// Templates returns the shipped templates by name.
func Templates() ([]Template, error) {
	files, err := templateFiles.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	var out []Template
	for _, f := range files {
		text, err := templateFiles.ReadFile(path.Join("templates", f.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, readTemplate(strings.TrimSuffix(f.Name(), ".rego"), string(text)))
	}
	return out, nil
}

// readTemplate reads the comment at the top of a template: a summary, the
// kind, and a line for each set.
func readTemplate(name, text string) Template {
	t := Template{Name: name, Rego: text, Sets: map[string]string{}}
	for i, line := range strings.Split(text, "\n") {
		comment, ok := strings.CutPrefix(line, "# ")
		if !ok {
			break
		}
		kind, isKind := strings.CutPrefix(comment, "kind ")
		set, isSet := strings.CutPrefix(comment, "set ")
		switch {
		case isKind:
			t.Kind = Kind(kind)
		case isSet:
			name, what, _ := strings.Cut(set, ": ")
			t.Sets[name] = what
		case i == 0 || t.Kind == "":
			t.Summary = strings.TrimSpace(t.Summary + " " + comment)
		}
	}
	return t
}

// Fill returns the text of a template with its sets replaced.
func (t Template) Fill(sets map[string][]string) (string, error) {
	text := t.Rego
	for name, members := range sets {
		if _, ok := t.Sets[name]; !ok {
			return "", fmt.Errorf("%w %s has no set %q", ErrTemplate, t.Name, name)
		}
		members = slices.Compact(slices.Sorted(slices.Values(members)))
		quoted := make([]string, len(members))
		for i, m := range members {
			b, err := json.Marshal(m)
			if err != nil {
				return "", err
			}
			quoted[i] = string(b)
		}
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` := \{.*\}$`)
		text = line.ReplaceAllLiteralString(text, name+" := {"+strings.Join(quoted, ", ")+"}")
	}
	return text, nil
}
