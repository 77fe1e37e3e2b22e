package strictjson_test

import (
	"encoding/json"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

func TestList(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "null": 0, " null ": 0, "[]": 0, " [ ] ": 0, `[1,"two"]`: 2, `[{"a":[]},null,[1,2,3]]`: 3,
		"[1,2,3,4]": -1, "{}": -1, `"text"`: -1, "[1,2": -1, "[1 2]": -1, "[1],": -1, "[1][2]": -1, "x": -1,
	} {
		list, err := strictjson.List(json.RawMessage(text), 3)
		if (err != nil) != (want < 0) || err == nil && len(list) != want {
			t.Errorf("%q: %d elements, %v", text, len(list), err)
		}
	}
	list, err := strictjson.List(json.RawMessage(`[ {"a": 1} , "b" ]`), 2)
	if err != nil || string(list[0]) != `{"a": 1}` || string(list[1]) != `"b"` {
		t.Errorf("%q, %v", list, err)
	}
}

func FuzzList(f *testing.F) {
	for _, text := range []string{"[]", "null", `[{"a":[1]},"x"]`, "[1,2,3,4]", "[[[["} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := strictjson.List(raw, 3)
		var all []json.RawMessage
		if strictjson.CheckExact(raw) != nil {
			return // of these the caller knows already that they are none
		}
		if known := json.Unmarshal(raw, &all); (err == nil) != (known == nil && len(all) <= 3) || err == nil && len(list) != len(all) {
			t.Errorf("%q: %d elements, %v; encoding/json has %d, %v", raw, len(list), err, len(all), known)
		}
	})
}
