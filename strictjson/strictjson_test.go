package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

func TestCheck(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	many := func(last string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range 100 {
			fmt.Fprintf(&b, `"name%d":%d,`, i, i)
		}
		return b.String() + last + ":0}"
	}
	tests := []struct {
		name, text   string
		check, exact bool
	}{
		{"a value of every kind", ` {"a":[1,-0.5e+3,"x\u00e9\n",true,false,null,{}],"b":[]} `, true, true},
		{"a scalar", "7", true, true},
		{"nothing", "", false, false},
		{"space alone", " \n", false, false},
		{"repeated", `{"a":1,"a":2}`, false, false},
		{"repeated below", `[{"x":{"a":1,"a":2}}]`, false, false},
		{"repeated with an escape", `{"a":1,"\u0061":2}`, false, false},
		{"other case", `{"nonce":1,"Nonce":2}`, false, true},
		{"the Kelvin sign is a K", "{\"k\":1,\"\u212a\":2}", false, true},
		{"the same name in two objects", `[{"a":1},{"a":2}]`, true, true},
		{"many names", many(`"other"`), true, true},
		{"many names, one repeated", many(`"name7"`), false, false},
		{"many names, one in other case", many(`"NAME7"`), false, true},
		{"data after the value", `{} {}`, false, false},
		{"as deep as allowed", nested(strictjson.MaxDepth), true, true},
		{"too deep", nested(strictjson.MaxDepth + 1), false, false},
		{"not UTF-8", "\"\xff\"", false, false},
		{"a control character", "\"a\nb\"", false, false},
		{"a bad escape", `"\x"`, false, false},
		{"a short escape", `"\u12"`, false, false},
		{"an open string", `"abc`, false, false},
		{"an open object", `{"a":1`, false, false},
		{"a comma too many", `[1,]`, false, false},
		{"no comma", `[1 2]`, false, false},
		{"a name without quotes", `{a:1}`, false, false},
		{"leading zero", `01`, false, false},
		{"a bare minus", `-`, false, false},
		{"no digits after the point", `1.`, false, false},
		{"no digits in the exponent", `1e`, false, false},
		{"a word cut short", `tru`, false, false},
		{"a NUL", "[\x00]", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := strictjson.Check([]byte(tt.text)); (err == nil) != tt.check || err != nil && !errors.Is(err, strictjson.ErrSyntax) {
				t.Errorf("Check: %v", err)
			}
			if err := strictjson.CheckExact([]byte(tt.text)); (err == nil) != tt.exact {
				t.Errorf("CheckExact: %v", err)
			}
		})
	}
}

func TestMembers(t *testing.T) {
	m, err := strictjson.Members([]byte(` { "a" : {"b":1} , "\u0063":[ 2 ],"A":"x" } `))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": `{"b":1}`, "c": "[ 2 ]", "A": `"x"`} {
		if string(m[name]) != want {
			t.Errorf("%s is %s, want %s", name, m[name], want)
		}
	}
	if len(m) != 3 {
		t.Errorf("got %v", m)
	}
	for _, text := range []string{"", "[]", "null", `"x"`, "{", `{"a":1,"a":1}`, `{"a":{"b":1,"b":1}}`, "{}x"} {
		if m, err := strictjson.Members([]byte(text)); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("%s: %v, %v", text, m, err)
		}
	}
}

func TestText(t *testing.T) {
	for raw, want := range map[string]string{`""`: "", `"a"`: "a", `"\u0061\\\"\n"`: "a\\\"\n", `"é"`: "é"} {
		got, err := strictjson.Text([]byte(raw))
		if err != nil || string(got) != want {
			t.Errorf("%s says %q, %v, want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", `"`, "null", "1", `["a"]`, `{"a":"b"}`, `"\x"`} {
		if got, err := strictjson.Text([]byte(raw)); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("%s says %q, %v", raw, got, err)
		}
	}
	// What is added to the result must not reach the text that it came from.
	raw := []byte(`"ab"`)
	got, err := strictjson.Text(raw)
	if err != nil || string(append(got, 'c')) != "abc" || string(raw) != `"ab"` {
		t.Errorf("%s became %s", got, raw)
	}
}

func TestDecode(t *testing.T) {
	var v struct {
		A int `json:"a"`
	}
	if err := strictjson.Decode([]byte(`{"a":1,"new":2}`), &v); err != nil || v.A != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := strictjson.Decode([]byte(`{"a":"1"}`), &v); !errors.Is(err, strictjson.ErrSyntax) {
		t.Errorf("a text for a number: %v", err)
	}
}

// reference finds out by the standard library what Check must say.
func reference(raw []byte) bool {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var value func(depth int) bool
	value = func(depth int) bool {
		t, err := d.Token()
		if err != nil {
			return false
		}
		delim, is := t.(json.Delim)
		if !is {
			return true
		}
		if depth == strictjson.MaxDepth {
			return false
		}
		var seen []string
		for d.More() {
			if delim == '{' {
				name, err := d.Token()
				if err != nil {
					return false
				}
				for _, other := range seen {
					if strings.EqualFold(other, name.(string)) {
						return false
					}
				}
				seen = append(seen, name.(string))
			}
			if !value(depth + 1) {
				return false
			}
		}
		_, err = d.Token()
		return err == nil
	}
	return json.Valid(raw) && value(0)
}

func sameText(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,"\u00e9"],"A":null}`, `{"a":[ 1, 2 ],"b":[["x]"],{}],"c":[]}`, `{"a":1,"\u0061":2}`, `{"a":[ 1, 2 ],"b":[["x]"],{}],"c":[]}`, "[[[]]]", `"\ud800"`, "{} 1", "-0", "\xff", "tru", "[1,]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := strictjson.Check(raw)
		if want := reference(raw) && strings.ToValidUTF8(string(raw), "") == string(raw); (err == nil) != want {
			t.Fatalf("%q: %v, the standard library says %v", raw, err, want)
		}
		inner, ierr := strictjson.Inner(raw) // must not panic on anything
		m, merr := strictjson.Members(raw)
		checked, cerr := strictjson.CheckedMembers(raw)
		if (cerr == nil) != (err == nil && merr == nil) {
			t.Fatalf("%q: CheckedMembers says %v, Check %v, Members %v", raw, cerr, err, merr)
		}
		if merr == nil && (ierr != nil || !maps.EqualFunc(inner, m, sameText)) {
			t.Fatalf("%q: Inner says %v (%v), Members %v", raw, inner, ierr, m)
		}
		if err == nil && merr == nil {
			if !maps.EqualFunc(checked, m, sameText) {
				t.Fatalf("%q: CheckedMembers says %v, Members %v", raw, checked, m)
			}
			var want map[string]json.RawMessage
			if err := json.Unmarshal(raw, &want); err != nil || len(want) != len(m) {
				t.Fatalf("%q: %v, want %v (%v)", raw, m, want, err)
			}
			for name, v := range want {
				if !bytes.Equal(m[name], v) {
					t.Fatalf("%q: member %q is %s, want %s", raw, name, m[name], v)
				}
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	numbers := make([]int, 6000)
	for i := range numbers {
		numbers[i] = i * 7 % 256
	}
	raw, err := json.Marshal(map[string]any{"evidence": numbers, "platform": "snp"})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("strict", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		for b.Loop() {
			if err := strictjson.Check(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json.Valid", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			if !json.Valid(raw) {
				b.Fatal("invalid")
			}
		}
	})
}
