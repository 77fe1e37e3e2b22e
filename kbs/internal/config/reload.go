package config

import (
	"fmt"
	"reflect"
	"slices"
)

// reloadable are the keys whose change takes effect in a running broker. All
// others are read at the start.
var reloadable = []string{
	"logging.level", "tracing.sample_ratio",
	"limits.auth_per_second", "limits.attest_per_second", "limits.failures_per_second", "limits.burst_seconds", "limits.addresses",
	"limits.trusted_proxies", "limits.attest_concurrency", "limits.attest_queue", "limits.attest_queue_ms",
	"verifier.snp.revocation_lists", tableAzSNP + ".revocation_lists",
}

// Reloadable reports whether a change of a key takes effect without a restart.
func Reloadable(key string) bool {
	return slices.Contains(reloadable, key)
}

// Changes lists the keys whose values differ between two configurations:
// those that take effect at once, and those that need a restart.
func Changes(before, after Config) (atOnce, restart []string) {
	a, b := flatten(before), flatten(after)
	for key := range b {
		if _, ok := a[key]; !ok {
			a[key] = ""
		}
	}
	for _, key := range sortedNames(a) {
		switch {
		case a[key] == b[key]:
		case Reloadable(key):
			atOnce = append(atOnce, key)
		default:
			restart = append(restart, key)
		}
	}
	return atOnce, restart
}

// Adopt returns l with the values of next that take effect without a restart:
// what is in force after a reload.
func (l Loaded) Adopt(next Loaded) Loaded {
	out := Loaded{Config: l.Config, Origins: next.Origins, Files: next.Files}
	values := map[string]reflect.Value{}
	collect := func(path string, _ reflect.StructField, v reflect.Value) { values[path] = v }
	leaves("", reflect.ValueOf(next.Config), collect)
	leaves("", reflect.ValueOf(&out.Config).Elem(), func(path string, _ reflect.StructField, v reflect.Value) {
		if from, ok := values[path]; ok && Reloadable(path) {
			v.Set(from)
		}
	})
	return out
}

// flatten writes every leaf as a text that differs whenever the value does.
func flatten(c Config) map[string]string {
	out := map[string]string{}
	leaves("", reflect.ValueOf(c), func(path string, _ reflect.StructField, v reflect.Value) {
		out[path] = fmt.Sprintf("%#v", v.Interface())
	})
	return out
}

// leaves visits every value that is not a table: scalars, lists of scalars and
// the members of maps, in the order of the declarations.
func leaves(path string, v reflect.Value, visit func(path string, f reflect.StructField, v reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		f, member := t.Field(i), v.Field(i)
		if f.Anonymous && keyOf(f) == "" {
			leaves(path, member, visit)
			continue
		}
		at := join(path, keyOf(f))
		if member.Kind() == reflect.Pointer {
			if member.IsNil() {
				continue
			}
			member = member.Elem()
		}
		switch {
		case member.Kind() == reflect.Struct:
			leaves(at, member, visit)
		case isTables(member.Type()):
			for i := range member.Len() {
				leaves(index(at, i), member.Index(i), visit)
			}
		default:
			visit(at, f, member)
		}
	}
}

// isTables reports whether a type is a list of tables.
func isTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}
