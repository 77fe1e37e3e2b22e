package cmdline

import (
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                      nil,
		" quiet\tip=off \n":     {"quiet", "ip=off"},
		`a="b c" d`:             {"a=b c", "d"},
		`"a=b c" d`:             {"a=b c", "d"},
		`dm="x,,,ro, 0 1 v" ""`: {"dm=x,,,ro, 0 1 v", ""},
		`a="never closed b`:     {"a=never closed b"},
	} {
		if got := Words(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Hostile or not, a command line is split into words that hold no white space but
// what was quoted.
func FuzzWords(f *testing.F) {
	f.Add(`quiet ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0:none`)
	f.Add(`dm-mod.create="a,,,ro,0 8 verity" ip=:::::::`)
	f.Fuzz(func(t *testing.T, text string) {
		if list := Words(text); !strings.Contains(text, `"`) && !slices.Equal(list, splitASCII(text)) {
			t.Errorf("%q: %q", text, list)
		}
	})
}

func splitASCII(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r < 128 && strings.ContainsRune(" \t\n\r\v\f", r) })
}
