package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct{ name, doc, want string }{
		{"plain", `{"a":1,"b":{"c":[{"d":null}]}}`, ""},
		{"white space after", "{\"a\":1}\n", ""},
		{"duplicate", `{"a":1,"a":2}`, "duplicate"},
		{"duplicate, escaped", `{"a":1,"\u0061":2}`, "duplicate"},
		{"duplicate inside", `{"a":[{"b":1,"b":1}]}`, "duplicate"},
		{"same name in two objects", `{"a":{"x":1},"b":{"x":1}}`, ""},
		{"trailing object", `{"a":1}{}`, "after the end"},
		{"trailing garbage", `{"a":1}x`, "after the end"},
		{"array", `[1]`, "not an object"},
		{"null", `null`, "not an object"},
		{"empty", ``, "EOF"},
		{"cut short", `{"a":`, "EOF"},
		{"not UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"too deep", strings.Repeat(`{"a":`, 80) + "1" + strings.Repeat("}", 80), "deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.doc))
			if tt.want == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestTakeMatchesExactly(t *testing.T) {
	o, err := Parse([]byte(`{"Type":"x","type":"y","rest":1}`))
	if err != nil {
		t.Fatal(err)
	}
	var v string
	if ok, err := o.Take("type", &v); !ok || err != nil || v != "y" {
		t.Fatalf("got %v %v %q", ok, err, v)
	}
	if !o.HasFold("TYPE") || o.HasFold("absent") {
		t.Error("HasFold")
	}
	if err := o.Done(); err == nil {
		t.Error("two members were left and nobody minded")
	}
	var n int
	if ok, err := o.Take("rest", &v); !ok || err == nil {
		t.Error("a number was taken for a string")
	}
	if ok, _ := o.Take("rest", &n); ok {
		t.Error("a member was taken twice")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"x",null,true]}}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Parse(raw)
		if err != nil {
			return
		}
		var v map[string]any
		if err := json.Unmarshal(raw, &v); err != nil || len(v) != len(o.Names()) {
			t.Fatalf("accepted what encoding/json reads otherwise: %v", err)
		}
	})
}
