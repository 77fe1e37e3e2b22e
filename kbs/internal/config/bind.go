package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// binder puts the settings of one source into a Config. It collects every
// complaint, each with its line, and notes where each value came from.
//
// Members are named by their toml tag. A member with the tag kind:"path" is a
// file name: a relative one is relative to the file that it is written in. One
// with kind:"uri" is a file name or a URI. One with kind:"secret" is never
// printed.
type binder struct {
	name    string // of the source, as origins show it
	dir     string // for relative paths; "" leaves them alone
	lines   map[string]int
	origins Origins
	wrong   []complaint
}

func (b *binder) bind(tree map[string]any, c *Config) error {
	b.members("", tree, reflect.ValueOf(c).Elem())
	slices.SortStableFunc(b.wrong, func(x, y complaint) int { return cmp.Compare(x.line, y.line) })
	var all []error
	for _, w := range b.wrong {
		all = append(all, errors.New(w.text))
	}
	return errors.Join(all...)
}

// complaint is what is wrong, and in which line; 0 where there are no lines.
type complaint struct {
	line int
	text string
}

func (b *binder) bad(path, format string, args ...any) {
	text, line := path+": "+fmt.Sprintf(format, args...), b.line(path)
	if line > 0 {
		text = fmt.Sprintf("line %d: %s", line, text)
	}
	b.wrong = append(b.wrong, complaint{line, text})
}

// line of a path, or of the nearest one around it that has a line.
func (b *binder) line(path string) int {
	for path != "" {
		if n := b.lines[path]; n > 0 {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// members binds the keys of a table to the members of a struct.
func (b *binder) members(path string, table map[string]any, dst reflect.Value) {
	fields := fieldsOf(dst.Type())
	for _, key := range slices.Sorted(maps.Keys(table)) {
		at := join(path, key)
		f, ok := fields[key]
		if !ok {
			b.bad(at, "unknown key%s", advice(at))
			continue
		}
		b.value(at, table[key], dst.FieldByIndex(f.Index), f.Tag.Get("kind"))
	}
}

// fieldsOf returns the members of a struct by their key.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	out := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) { // those of embedded structs too
		if key := keyOf(f); key != "" {
			out[key] = f
		}
	}
	return out
}

func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return key
}

func (b *binder) value(path string, v any, dst reflect.Value, kind string) {
	switch dst.Kind() { //nolint:exhaustive // TestEveryMemberBinds goes through all that there are
	case reflect.Struct:
		table, ok := v.(map[string]any)
		if !ok {
			b.bad(path, "must be a table, is %s", describe(v))
			return
		}
		b.members(path, table, dst)
		return
	case reflect.Pointer:
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		b.value(path, v, dst.Elem(), kind)
		return
	case reflect.Map:
		b.table(path, v, dst, kind)
		return
	case reflect.Slice:
		b.list(path, v, dst, kind)
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			b.bad(path, "must be a text, is %s", describe(v))
			return
		}
		dst.SetString(b.located(s, kind))
	case reflect.Bool:
		x, ok := v.(bool)
		if !ok {
			b.bad(path, "must be true or false, is %s", describe(v))
			return
		}
		dst.SetBool(x)
	case reflect.Int, reflect.Int64:
		n, ok := v.(int64)
		if !ok || dst.OverflowInt(n) {
			b.bad(path, "must be a whole number, is %s", describe(v))
			return
		}
		dst.SetInt(n)
	case reflect.Float64:
		b.float(path, v, dst)
	default:
		b.bad(path, "cannot be set")
		return
	}
	b.origins[path] = b.origin(path)
}

func (b *binder) origin(path string) string {
	if line := b.line(path); line > 0 {
		return fmt.Sprintf("%s:%d", b.name, line)
	}
	return b.name
}

func (b *binder) located(s, kind string) string {
	if kind == "uri" && !strings.Contains(s, "://") {
		kind = "path"
	}
	if kind == "path" && s != "" && b.dir != "" && !filepath.IsAbs(s) {
		return filepath.Join(b.dir, s)
	}
	return s
}

func (b *binder) float(path string, v any, dst reflect.Value) {
	switch n := v.(type) {
	case int64:
		dst.SetFloat(float64(n))
	case float64:
		dst.SetFloat(n)
	default:
		b.bad(path, "must be a number, is %s", describe(v))
	}
}

// list replaces a whole list: a later source does not add to an earlier one.
func (b *binder) list(path string, v any, dst reflect.Value, kind string) {
	items, ok := v.([]any)
	if !ok {
		b.bad(path, "must be a list, is %s", describe(v))
		return
	}
	out := reflect.MakeSlice(dst.Type(), len(items), len(items))
	for i, item := range items {
		b.value(index(path, i), item, out.Index(i), kind)
	}
	dst.Set(out)
}

// table adds to a map, key by key.
func (b *binder) table(path string, v any, dst reflect.Value, kind string) {
	table, ok := v.(map[string]any)
	if !ok {
		b.bad(path, "must be a table, is %s", describe(v))
		return
	}
	if dst.IsNil() {
		dst.Set(reflect.MakeMap(dst.Type()))
	}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		item := reflect.New(dst.Type().Elem()).Elem()
		b.value(join(path, key), table[key], item, kind)
		dst.SetMapIndex(reflect.ValueOf(key), item)
	}
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "empty"
	case string:
		return "a text"
	case bool:
		return fmt.Sprint(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date"
	}
}
