package openapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// methodOrder is that of the sections of one path.
var methodOrder = []string{"get", "put", "post", "delete"}

// Page writes the document for people, in Markdown: a table of all operations,
// a section for each, and the types.
func (d Document) Page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: API\n\n%s\n\n", d.Info.Title, d.Info.Description)
	b.WriteString("| operation | who | listeners | |\n|---|---|---|---|\n")
	d.each(func(method, path string, o Operation) {
		fmt.Fprintf(&b, "| `%s %s` | %s | %s | %s |\n", method, path, o.Access, strings.Join(o.Listeners, ", "), o.Summary)
	})
	d.each(func(method, path string, o Operation) {
		fmt.Fprintf(&b, "\n## %s %s\n\n%s. Operation `%s`; who: %s; on: %s.\n", method, path, o.Summary, o.ID, o.Access, strings.Join(o.Listeners, ", "))
		o.page(&b)
	})
	b.WriteString("\n# Types\n")
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		if !strings.HasSuffix(name, inputSuffix) {
			page(&b, name, d.Components.Schemas[name])
		}
	}
	return b.String()
}

func (d Document) each(visit func(method, path string, o Operation)) {
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, m := range methodOrder {
			if o, ok := d.Paths[path][m]; ok {
				visit(strings.ToUpper(m), path, o)
			}
		}
	}
}

func (o Operation) page(b *strings.Builder) {
	for _, p := range o.Parameters {
		if p.Slashes {
			p.Description = "may hold slashes"
		}
		if p.In == "query" || p.Slashes {
			fmt.Fprintf(b, "\n- %s parameter `%s`: %s", p.In, p.Name, p.Description)
		}
	}
	if o.RequestBody != nil {
		fmt.Fprintf(b, "\n- request: %s", contents(o.RequestBody.Content))
	}
	for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
		r := o.Responses[status]
		text := r.Description
		if strings.HasPrefix(status, "2") {
			text = cmp.Or(contents(r.Content), "empty")
		}
		fmt.Fprintf(b, "\n- %s: %s", status, text)
	}
	b.WriteByte('\n')
}

func contents(all map[string]Media) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text := "`" + name + "`"
		if s := all[name].Schema; s != nil {
			text += ", " + s.String()
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func page(b *strings.Builder, name string, s *Schema) {
	fmt.Fprintf(b, "\n## %s\n\n| member | type | always |\n|---|---|---|\n", name)
	for _, member := range slices.Sorted(maps.Keys(s.Properties)) {
		always := ""
		if slices.Contains(s.Required, member) {
			always = "yes"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", member, s.Properties[member], always)
	}
}

// String names the type in words.
func (s *Schema) String() string {
	switch {
	case s.Ref != "":
		return strings.TrimSuffix(strings.TrimPrefix(s.Ref, refPrefix), inputSuffix)
	case len(s.AllOf) > 0:
		text := s.AllOf[0].String()
		if required := s.AllOf[1].Required; required != nil {
			text += " with " + strings.Join(required, ", ")
		}
		return text
	case len(s.AnyOf) > 0:
		return s.AnyOf[0].String() + " or null"
	case s.Items != nil:
		return "list of " + s.Items.String()
	case s.Additional != nil:
		return "map of " + s.Additional.String()
	case s.Type == nil:
		return "any JSON"
	}
	return fmt.Sprint(s.Type) + map[bool]string{true: " (" + cmp.Or(s.Format, s.ContentEncoding) + ")"}[s.Format+s.ContentEncoding != ""]
}
