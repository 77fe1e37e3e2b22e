package jsonstream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// tree reads a document as encoding/json does with UseNumber.
func tree(s *Scanner) (any, error) {
	kind, err := s.Kind()
	if err != nil {
		return nil, err
	}
	switch kind {
	case Object:
		m := map[string]any{}
		err := s.Object(func(name string) (err error) {
			m[name], err = tree(s)
			return err
		})
		return m, err
	case Array:
		l := []any{}
		err := s.Array(func(int) error {
			v, err := tree(s)
			l = append(l, v)
			return err
		})
		return l, err
	default:
		v, err := s.Scalar(1 << 20)
		return map[Kind]any{Text: v.Text, Number: json.Number(v.Text), True: true, False: false, Null: nil}[v.Kind], err
	}
}

func whole(r io.Reader) (any, error) {
	s := New(r)
	v, err := tree(s)
	if err == nil {
		err = s.End()
	}
	return v, err
}

func oracle(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

var good = []string{
	`{}`, `[]`, ` { "a" : [ 1 , -0.5e+10 , true , false , null , "x" ] , "b" : { } } `, `"\u00e9\ud83d\ude00\ud83d \"\\\/\b\f\n\r\t"`, `0`, `-1E5`,
	`{"a":{"b":{"c":["d",{"e":"f"}]}},"":1}`, `"` + strings.Repeat("long ", 10_000) + `"`, `"\ud83dx\ude00"`, `["\u002b\u003D"]`,
}

var bad = []string{
	``, ` `, `{`, `[`, `"`, `"\`, `"\u12`, `"\x"`, "\"\n\"", `01`, `-`, `1.`, `1e`, `tru`, `nul`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{a:1}`, `1 2`, `{} x`,
	"\"\xff\"", `+1`, `"\u+123"`, `"\u-123"`, `{"a":1 "b":2}`, `]`, `}`, `,`,
}

func TestScanner(t *testing.T) {
	for _, text := range good {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			got, err := whole(r)
			want, werr := oracle([]byte(text))
			if err != nil || werr != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %.80s: got %.200v, %v; want %.200v, %v", name, text, got, err, want, werr)
			}
		}
		s := New(strings.NewReader(text))
		if err := errors.Join(s.Skip(), s.End()); err != nil {
			t.Errorf("skip %.80s: %v", text, err)
		}
	}
	for _, text := range append(bad, strings.Repeat("[", strictjson.MaxDepth+1)+strings.Repeat("]", strictjson.MaxDepth+1)) {
		if got, err := whole(strings.NewReader(text)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	broken := errors.New("broken")
	if _, err := whole(io.MultiReader(strings.NewReader(`{"a":[1`), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, ErrSyntax) {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	s := New(strings.NewReader(`["12345",` + strings.Repeat("9", 100) + `,{"` + strings.Repeat("n", 5000) + `":1}]`))
	err := s.Array(func(i int) error {
		switch i {
		case 0:
			if v, err := s.Scalar(4); err != nil || v.Whole || v.Text != "1234" {
				t.Errorf("got %+v, %v", v, err)
			}
		case 1:
			if v, err := s.Scalar(4); err != nil || v.Whole || len(v.Text) != maxNumber {
				t.Errorf("got %+v, %v", v, err)
			}
		default:
			return s.Object(func(name string) error {
				if len(name) != MaxName+1 {
					t.Errorf("a name of %d bytes", len(name))
				}
				return s.Skip()
			})
		}
		return nil
	})
	if err != nil || s.End() != nil {
		t.Error(err)
	}
	s = New(strings.NewReader(`["abc"]`))
	if err := s.Array(func(int) error { _, err := s.Reader(); return err }); err == nil {
		t.Error("a text was left half read")
	}
}

func TestCarve(t *testing.T) {
	for _, tt := range []struct {
		text, path, rest, value string // value "-": there is none
		err                     error
	}{
		{`{"a":1,"b":{"c":"VALUE"},"d":[{"c":2}]}`, "b/c", `{"a":1,"b":{"c":null},"d":[{"c":2}]}`, "VALUE", nil},
		{` {"c" : "V" } `, "c", ` {"c" : null }`, "V", nil},
		{`{"a":{"c":"V"}}`, "c", `{"a":{"c":"V"}}`, "-", nil},
		{`{"b":["c"]}`, "b/c", `{"b":["c"]}`, "-", nil},
		{`["c"]`, "c", `["c"]`, "-", nil},
		{`{"\u0063":"V"}`, "c", `{"\u0063":null}`, "V", nil},
		{`{"c":"V","c":"W"}`, "c", "", "", ErrSyntax},
		{`{"b":{"c":"V"},"b":{}}`, "b/c", "", "", ErrSyntax},
		{`{"c":"V"} x`, "c", "", "", ErrSyntax},
		{`{"c":7}`, "c", "", "", ErrSyntax},
		{`{"c":"V"`, "c", "", "", ErrSyntax},
		{`{"long":"` + strings.Repeat("x", 200) + `","c":"V"}`, "c", "", "", ErrRoom},
		{`{"c":"` + strings.Repeat("x", 200) + `"}`, "c", `{"c":null}`, strings.Repeat("x", 200), nil},
	} {
		s, value := New(strings.NewReader(tt.text)), "-"
		rest, found, err := s.Carve(strings.Split(tt.path, "/"), "null", 100, func() error {
			r, err := s.Reader()
			if err != nil {
				return err
			}
			raw, err := io.ReadAll(r)
			value = string(raw)
			return err
		})
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.text, err)
		}
		if tt.err == nil && (string(rest) != tt.rest || value != tt.value || found != (value != "-")) {
			t.Errorf("%s: rest %s, value %q, %v", tt.text, rest, value, found)
		}
	}
	if _, _, err := New(strings.NewReader(`{}`)).Carve(nil, "", 9, nil); err == nil {
		t.Error("no path is a path")
	}
}

// What strictjson accepts is read as encoding/json reads it, whatever the pieces
// are that it comes in; what is read is JSON.
func FuzzScanner(f *testing.F) {
	for _, text := range append(good, bad...) {
		f.Add([]byte(text))
	}
	f.Add([]byte(`["` + strings.Repeat("\\u0041", 255) + `"]`))
	f.Add([]byte(strings.Repeat("9", 300)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := whole(bytes.NewReader(raw))
		want, werr := oracle(raw)
		strict := strictjson.CheckExact(raw) == nil
		switch {
		case err != nil && strict:
			t.Fatalf("%q is refused: %v", raw, err)
		case err == nil && !json.Valid(raw):
			t.Fatalf("%q is accepted: %v", raw, got)
		case err == nil && strict && !long(raw) && (werr != nil || !reflect.DeepEqual(got, want)):
			t.Fatalf("%q: got %v, want %v, %v", raw, got, want, werr)
		}
		halves, herr := whole(iotest.HalfReader(bytes.NewReader(raw)))
		if (herr == nil) != (err == nil) || err == nil && !reflect.DeepEqual(halves, got) {
			t.Fatalf("%q: %v, %v, and in pieces %v, %v", raw, got, err, halves, herr)
		}
	})
}

// long reports whether a name or a number may be cut.
func long(raw []byte) bool { return len(raw) > maxNumber }

// A text is read as a stream like it is read at once.
func FuzzReader(f *testing.F) {
	f.Add([]byte("payload"), 3)
	f.Add([]byte{}, 0)
	f.Add(bytes.Repeat([]byte{255}, 255), 76)
	f.Fuzz(func(t *testing.T, payload []byte, at int) {
		text, err := json.Marshal(base64.StdEncoding.EncodeToString(payload))
		if err != nil {
			t.Fatal(err)
		}
		if at > 0 && at < len(text) { // as some write base64
			text = bytes.Join([][]byte{text[:at], text[at:]}, []byte(`\n`))
		}
		s := New(iotest.OneByteReader(bytes.NewReader(text)))
		r, err := s.Reader()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, r))
		if err != nil || !bytes.Equal(got, payload) || s.End() != nil {
			t.Fatalf("%s: %q, %v", text, got, err)
		}
	})
}
