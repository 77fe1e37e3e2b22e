package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":               "",
		"repeated":            `{"nonce":"a","nonce":"b"}`,
		"repeated by escape":  `{"nonce":"a","n\u006fnce":"b"}`,
		"repeated by case":    `{"nonce":"a","NONCE":"b"}`,
		"repeated by folding": "{\"key\":1,\"\u212aey\":2}",
		"repeated inside":     `{"a":[{"b":1,"b":2}]}`,
		"two values":          `{} {}`,
		"trailing comma":      `{"a":1,}`,
		"trailing brace":      `{}}`,
		"unclosed":            `{"a":[1`,
		"not utf-8":           "{\"a\":\"\xff\"}",
		"deep":                strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2),
		"wrong type":          `{"Nonce":5}`,
	} {
		var v struct{ Nonce string }
		if err := Decode([]byte(text), &v); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAccepted(t *testing.T) {
	var v struct{ Nonce string }
	if err := Decode([]byte(" {\"nonce\":\"x\",\"other\":[{\"a\":1},{\"a\":2}]}\n"), &v); err != nil || v.Nonce != "x" {
		t.Fatalf("%+v: %v", v, err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"A":2}`, `[1,[2,{"x":null}]]`, `"\ud800"`, `{"a":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if Check(raw) == nil && !json.Valid(raw) {
			t.Fatalf("accepted invalid JSON %q", raw)
		}
	})
}
