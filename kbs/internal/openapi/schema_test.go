package openapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	N int `json:"n"`
}

type list[T any] struct {
	Items []T `json:"items"`
}

type outer struct {
	inner
	Text    string            `json:"text"`
	Maybe   *inner            `json:"maybe"`
	Absent  bool              `json:"absent,omitempty"`
	When    time.Time         `json:"when"`
	Bytes   []byte            `json:"bytes"`
	Raw     json.RawMessage   `json:"raw"`
	Map     map[string]string `json:"map"`
	Ratio   float64           `json:"ratio"`
	private string
	Skipped string `json:"-"`
}

func TestSchema(t *testing.T) {
	s := NewSchemas()
	if got := s.Of(outer{private: ""}); got.Ref != "#/components/schemas/Outer" {
		t.Fatalf("%+v", got)
	}
	raw, err := json.Marshal(s.All)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Inner":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]},` +
		`"Outer":{"type":"object","properties":{"absent":{"type":"boolean"},"bytes":{"type":"string","contentEncoding":"base64"},` +
		`"map":{"type":"object","additionalProperties":{"type":"string"}},"maybe":{"anyOf":[{"$ref":"#/components/schemas/Inner"},{"type":"null"}]},` +
		`"n":{"type":"integer"},"ratio":{"type":"number"},"raw":{},"text":{"type":"string"},"when":{"type":"string","format":"date-time"}},` +
		`"required":["n","text","maybe","when","bytes","raw","map","ratio"]}}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
	in := s.Input([]string{"text"}).Of(outer{})
	if in.AllOf[0].Ref != "#/components/schemas/OuterInput" || in.AllOf[1].Required[0] != "text" || s.All["OuterInput"].Required != nil {
		t.Errorf("input %+v, %+v", in, s.All["OuterInput"])
	}
}

func TestNames(t *testing.T) {
	for want, typ := range map[string]reflect.Type{"Inner": reflect.TypeFor[inner](), "innerList": reflect.TypeFor[list[inner]](), "TimeList": reflect.TypeFor[list[time.Time]]()} {
		if got := Name(typ); got != want {
			t.Errorf("%s is named %s, want %s", typ, got, want)
		}
	}
}

// Two types under one name would make one of them a lie.
func TestNamesakes(t *testing.T) {
	type inner struct{ Other string }
	s := NewSchemas()
	s.named(reflect.TypeFor[outer]())
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "share the name") {
			t.Errorf("recovered %v", p)
		}
	}()
	s.Of(inner{})
}
