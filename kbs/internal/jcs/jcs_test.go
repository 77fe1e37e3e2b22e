package jcs

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func TestTransform(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"white space", " { \"a\" :\t1 ,\n\"b\":[ ] }\r\n", `{"a":1,"b":[]}`},
		{"members sorted", `{"b":1,"a":2,"":3}`, `{"":3,"a":2,"b":1}`},
		{"sorted by UTF-16, not by code point", `{"\ufb33":1,"\ud83d\ude00":2,"\u00f6":3,"\r":4,"1":5,"\u0080":6,"\u20ac":7}`,
			"{\"\\r\":4,\"1\":5,\"\u0080\":6,\"\u00f6\":3,\"\u20ac\":7,\"\U0001f600\":2,\"\ufb33\":1}"},
		{"array order kept", `[3,{"z":null,"y":[true,false]},1]`, `[3,{"y":[true,false],"z":null},1]`},
		{"minimal escapes", `"\u0041\/\u003c\u003e\u0026\u2028\u000f\u0008\u000c\u0022\u005c"`, "\"A/<>&\u2028\\u000f\\b\\f\\\"\\\\\""},
		{"no normalisation", `"A\u030a"`, "\"A\u030a\""},
		{"numbers", `[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0,1e21,1e20,0.000001,1e-7]`,
			`[333333333.3333333,1e+30,4.5,0.002,1e-27,0,1e+21,100000000000000000000,0.000001,1e-7]`},
		{"brackets in strings", `"` + strings.Repeat(`[{\"`, 200) + `"`, `"` + strings.Repeat(`[{\"`, 200) + `"`},
		{"scalar", " true ", "true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Transform([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Fatalf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The number samples are chosen as in RFC 8785 appendix B: by bit pattern.
func TestNumbers(t *testing.T) {
	tests := []struct {
		bits uint64
		want string
	}{
		{0x0000000000000000, "0"},
		{0x8000000000000000, "0"},
		{0x0000000000000001, "5e-324"},
		{0x8000000000000001, "-5e-324"},
		{0x7fefffffffffffff, "1.7976931348623157e+308"},
		{0x4340000000000000, "9007199254740992"},
		{0xc340000000000000, "-9007199254740992"},
		{0x4430000000000000, "295147905179352830000"},
		{0x44b52d02c7e14af5, "9.999999999999997e+22"},
		{0x44b52d02c7e14af6, "1e+23"},
		{0x444b1ae4d6e2ef4e, "999999999999999700000"},
		{0x444b1ae4d6e2ef50, "1e+21"},
		{0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
		{0x3eb0c6f7a0b5ed8d, "0.000001"},
		{0x41b3de4355555557, "333333333.33333343"},
	}
	for _, tt := range tests {
		in := strconv.FormatFloat(math.Float64frombits(tt.bits), 'e', 17, 64)
		got, err := Transform([]byte(in))
		if err != nil || string(got) != tt.want {
			t.Errorf("%016x: got %s, %v, want %s", tt.bits, got, err, tt.want)
		}
	}
}

func TestTransformRefuses(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if _, err := Transform([]byte(nested(MaxDepth))); err != nil {
		t.Fatalf("depth %d must pass: %v", MaxDepth, err)
	}
	tests := []struct {
		name, in string
		want     error
	}{
		{"empty", "", nil},
		{"white space only", "  ", nil},
		{"duplicate name", `{"a":1,"a":1}`, nil},
		{"duplicate name by escape", `{"a":1,"\u0061":2}`, nil},
		{"duplicate name inside", `[{"x":{"k":1,"k":2}}]`, nil},
		{"trailing data", `{} {}`, nil},
		{"trailing comma", `[1,]`, nil},
		{"invalid UTF-8", "\"\xff\"", nil},
		{"overlong UTF-8", "\"\xc0\xaf\"", nil},
		{"lone surrogate", `"\ud800"`, nil},
		{"byte order mark", "\ufeff{}", nil},
		{"infinite", "1e400", nil},
		{"leading zero", "01", nil},
		{"not a number", "NaN", nil},
		{"open string", `"abc`, nil},
		{"control character", "\"\n\"", nil},
		{"too deep", nested(MaxDepth + 1), ErrTooDeep},
		{"too deep and open", strings.Repeat(`{"a":[`, 1<<16), ErrTooDeep},
		{"too long", strings.Repeat(" ", MaxBytes+1), ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := Transform([]byte(tt.in))
			if err == nil {
				t.Fatalf("accepted as %q", out)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Vector 5 of kbs-protocol 19.
func TestStructuredRuntimeDataVector(t *testing.T) {
	text, err := Transform([]byte(`{"b":1,"a":"test","c":{"d":"e"}}`))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(text)
	const want = "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestMarshal(t *testing.T) {
	got, err := Marshal(struct {
		Z string `json:"z"`
		A string `json:"a"`
	}{"<&>\u2028", "é"})
	if err != nil || string(got) != "{\"a\":\"é\",\"z\":\"<&>\u2028\"}" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := Marshal(make(chan int)); err == nil {
		t.Fatal("a channel has no JSON form")
	}
}

func FuzzTransform(f *testing.F) {
	for _, s := range []string{`{"b":[1,2.50,-0],"a":"\u20ac\/"}`, `[]`, `"\ud83d\ude00"`, `1e-7`, `{"a":{"a":{}}}`, `{"a":1,"a":2}`, "nul", `[1,]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		once, err := Transform(in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q, which is not JSON", in)
		}
		twice, err := Transform(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("canonical %q turned into %q, %v", once, twice, err)
		}
		var a, b any
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(once, &b) != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%q changed its meaning to %q", in, once)
		}
	})
}
