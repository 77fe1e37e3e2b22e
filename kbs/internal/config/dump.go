package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Dump writes the configuration as TOML. It holds no secrets: keys are named
// by file only, and a member of kind "secret" is not written.
func (c Config) Dump() ([]byte, error) { return dump(c, nil) }

// Dump writes the configuration as TOML, with the origin of each value.
func (l Loaded) Dump() ([]byte, error) { return dump(l.Config, l.Origins) }

func dump(c Config, origins Origins) ([]byte, error) {
	d := dumper{origins: origins}
	d.table("", reflect.ValueOf(c))
	return bytes.TrimLeft(d.out.Bytes(), "\n"), d.err
}

type dumper struct {
	out     bytes.Buffer
	origins Origins // nil writes none
	err     error
}

// table writes the scalars of a table, and then the tables in it: TOML wants
// them in this order.
func (d *dumper) table(path string, v reflect.Value) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := keyOf(f)
		if key == "" {
			continue
		}
		if member, ok := follow(v.FieldByIndex(f.Index)); ok && !nested(member) {
			d.leaf(join(path, key), key, member, f)
		}
	}
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := keyOf(f)
		if key == "" {
			continue
		}
		member, ok := follow(v.FieldByIndex(f.Index))
		if !ok || !nested(member) {
			continue
		}
		at := join(path, key)
		if member.Kind() == reflect.Struct {
			fmt.Fprintf(&d.out, "\n[%s]\n", at)
			d.table(at, member)
			continue
		}
		for i := range member.Len() {
			fmt.Fprintf(&d.out, "\n[[%s]]\n", strings.ReplaceAll(at, "[0]", ""))
			d.table(index(at, i), member.Index(i))
		}
	}
}

// follow goes through a pointer; false means that there is nothing.
func follow(v reflect.Value) (reflect.Value, bool) {
	if v.Kind() == reflect.Pointer {
		return v.Elem(), !v.IsNil()
	}
	return v, true
}

// nested reports whether a value is written under a heading of its own.
func nested(v reflect.Value) bool {
	return v.Kind() == reflect.Struct || isTables(v.Type()) && v.Len() > 0
}

func (d *dumper) leaf(path, key string, v reflect.Value, f reflect.StructField) {
	if strings.HasSuffix(f.Tag.Get("toml"), ",omitempty") && v.IsZero() {
		return
	}
	if f.Tag.Get("kind") == "secret" {
		fmt.Fprintf(&d.out, "# %s is set: %t (%s)\n", key, !v.IsZero(), d.origin(path))
		return
	}
	var line bytes.Buffer
	enc := toml.NewEncoder(&line)
	enc.SetTablesInline(true)
	if err := enc.Encode(map[string]any{key: v.Interface()}); err != nil {
		d.err = err
		return
	}
	text := strings.TrimRight(line.String(), "\n")
	if d.origins != nil {
		text = fmt.Sprintf("%-48s # %s", text, d.origin(path))
	}
	d.out.WriteString(text + "\n")
}

// origin of a value, or for one in a list that of the list.
func (d *dumper) origin(path string) string {
	if o, ok := d.origins[path]; ok {
		return o
	}
	for o := range d.origins {
		if strings.HasPrefix(o, path+".") {
			return d.origins[o] // a map, of which one member was given
		}
	}
	return "default"
}
