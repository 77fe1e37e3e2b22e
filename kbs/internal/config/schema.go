package config

import (
	"embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"reflect"
	"strings"
)

// sources are this package's own files: the comments of the members are the
// documentation of the keys, so that there is one text and not two.
//
//go:embed *.go
var sources embed.FS

// comments returns the doc comments by "Type.Member".
func comments() (map[string]string, error) {
	names, err := fs.Glob(sources, "*.go")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, name := range names {
		raw, err := sources.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, raw, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if st, ok := spec.Type.(*ast.StructType); ok {
					commentsOf(spec.Name.Name, st, out)
				}
			}
			return true
		})
	}
	return out, nil
}

func commentsOf(name string, st *ast.StructType, out map[string]string) {
	for _, f := range st.Fields.List {
		text := f.Doc.Text()
		if text == "" {
			text = f.Comment.Text()
		}
		for _, id := range f.Names {
			out[name+"."+id.Name] = strings.TrimSpace(strings.ReplaceAll(text, "\n", " "))
		}
	}
}

// Schema returns the JSON Schema (2020-12) of a configuration file.
func Schema() ([]byte, error) {
	docs, err := comments()
	if err != nil {
		return nil, err
	}
	s := schemaOf(reflect.ValueOf(Default(func(string) string { return "" })), docs)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Configuration of the Vouchsafe key broker"
	raw, err := json.MarshalIndent(s, "", "  ")
	return append(raw, '\n'), err
}

func schemaOf(v reflect.Value, docs map[string]string) map[string]any {
	properties := map[string]any{}
	each(v, func(key string, f reflect.StructField, owner reflect.Type, member reflect.Value) {
		p := typeSchema(f.Type, member, docs)
		if text := docs[owner.Name()+"."+f.Name]; text != "" {
			p["description"] = text
		}
		properties[key] = p
	})
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

// each visits the members of a struct, those of embedded ones included, with
// the type that declares them.
func each(v reflect.Value, visit func(key string, f reflect.StructField, owner reflect.Type, member reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && keyOf(f) == "" {
			each(v.Field(i), visit)
			continue
		}
		visit(keyOf(f), f, t, v.Field(i))
	}
}

// typeSchema describes a type; def is its default, and may be invalid.
func typeSchema(t reflect.Type, def reflect.Value, docs map[string]string) map[string]any {
	switch t.Kind() { //nolint:exhaustive // TestEveryMemberBinds goes through all that there are
	case reflect.Pointer:
		return typeSchema(t.Elem(), reflect.New(t.Elem()).Elem(), docs)
	case reflect.Struct:
		if !def.IsValid() {
			def = reflect.New(t).Elem()
		}
		return schemaOf(def, docs)
	case reflect.Slice:
		return withDefault(map[string]any{"type": "array", "items": typeSchema(t.Elem(), reflect.Value{}, docs)}, def)
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": typeSchema(t.Elem(), reflect.Value{}, docs)}
	}
	return withDefault(map[string]any{"type": scalarType(t)}, def)
}

func scalarType(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // as above
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	default:
		return "string"
	}
}

func withDefault(s map[string]any, def reflect.Value) map[string]any {
	if def.IsValid() && !def.IsZero() {
		s["default"] = def.Interface()
	}
	return s
}

// Page writes the reference of all keys, in Markdown.
func Page() (string, error) {
	docs, err := comments()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Configuration\n\n" +
		"A file (TOML, or YAML or JSON by its extension), drop-ins `conf.d/*.toml` beside it, environment variables and flags; the later\n" +
		"goes before the earlier. Unknown keys are errors. `kbs config dump` tells where each value in force comes from. Keys marked ↻\n" +
		"take effect in a running broker (SIGHUP, or a change of the file); the others at the next start. Only keys with a variable can\n" +
		"be set in the environment.\n")
	pageOf(&b, "", reflect.ValueOf(Default(func(string) string { return "" })), docs)
	return b.String(), nil
}

func pageOf(b *strings.Builder, path string, v reflect.Value, docs map[string]string) {
	var below []func()
	rows := &strings.Builder{}
	each(v, func(key string, f reflect.StructField, owner reflect.Type, member reflect.Value) {
		at, t := join(path, key), f.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
			member = reflect.New(t).Elem()
		}
		if isTables(t) {
			at, t = at+"[]", t.Elem()
			member = reflect.New(t).Elem()
		}
		if t.Kind() == reflect.Struct {
			below = append(below, func() { pageOf(b, at, member, docs) })
			return
		}
		fmt.Fprintf(rows, "| `%s` | %s | %s | %s | %s |\n", key, typeName(t), shown(member), variable(at, t), docs[owner.Name()+"."+f.Name]+mark(at))
	})
	if rows.Len() > 0 {
		title := path
		if path == "" {
			title = "top level"
		}
		fmt.Fprintf(b, "\n## %s\n\n| key | type | default | variable | meaning |\n|---|---|---|---|---|\n%s", title, rows)
	}
	for _, write := range below {
		write()
	}
}

func typeName(t reflect.Type) string {
	switch t.Kind() { //nolint:exhaustive // as above
	case reflect.Slice:
		return "list of " + scalarType(t.Elem())
	case reflect.Map:
		return "table of " + scalarType(t.Elem())
	}
	return scalarType(t)
}

func shown(v reflect.Value) string {
	if !v.IsValid() || v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return ""
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		return ""
	}
	return "`" + string(raw) + "`"
}

func variable(path string, t reflect.Type) string {
	if strings.Contains(path, "[]") || t.Kind() == reflect.Map || t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.String {
		return ""
	}
	return "`" + EnvName(path) + "`"
}

func mark(path string) string {
	if Reloadable(path) {
		return " ↻"
	}
	return ""
}
