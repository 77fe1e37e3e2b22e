package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/jsonstream"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// conditions parses a list as a policy has it.
func conditions(list []byte) ([]condition, error) {
	doc, err := strictjson.Parse(fmt.Appendf(nil, `{"where":%s}`, list))
	if err != nil {
		return nil, err
	}
	return parseWhere(doc)
}

// bom is what a bill of materials looks like.
const bom = `{"name":"app","count":3,"score":6.95,"clean":true,"nothing":null,"versions":["1.2","1.10","2"],"empty":[],"packages":[
	{"name":"openssl","version":"3.0.15","licenses":[{"id":"Apache-2.0"}]},
	{"name":"zlib","version":"1.3.1","licenses":[{"id":"Zlib"},{"id":"MIT"}]},
	{"name":"busybox","version":"1.36-r2","licenses":[]},
	{"version":"7"}],
	"twice":1,"twice":2,"findings":[{"severity":"low","score":3.1},{"severity":"high","score":7.5}],
	"odd":[{"name":["log4j"]},{"name":null}],"double":[{"name":"a","name":"log4j"}]}`

func TestConditions(t *testing.T) {
	for _, tt := range []struct {
		condition string
		holds     bool
		seen      string
	}{
		{`"at":"/name","is":"app"`, true, "app"},
		{`"at":"/name","is":"App"`, false, "app"},
		{`"at":"/name","oneOf":["x","app"]`, true, "app"},
		{`"at":"/name","oneOf":["x"]`, false, "app"},
		{`"at":"/count","oneOf":["3"]`, false, "3"},
		{`"at":"/clean","is":true`, true, "true"},
		{`"at":"/clean","is":"true"`, false, "true"},
		{`"at":"/nothing","matches":".*"`, false, "no text"},
		{`"at":"/twice","is":1`, false, "two values"},
		{`"at":"/twice","is":2`, false, "two values"},

		{`"at":"/count","atLeast":3`, true, "3"},
		{`"at":"/count","atMost":3`, true, "3"},
		{`"at":"/count","atLeast":3.5`, false, "3"},
		{`"at":"/count","atMost":2`, false, "3"},
		{`"at":"/score","atMost":7`, true, "6.95"},
		{`"at":"/score","atMost":6.9`, false, "6.95"},
		{`"at":"/score","atMost":"6.9"`, false, "6.95"},
		{`"at":"/name","atLeast":0`, false, "app"},
		{`"at":"/clean","atLeast":0`, false, "true"},
		{`"at":"/versions/1","atLeast":"1.9"`, true, "1.10"},
		{`"at":"/versions/1","atMost":"1.10.0"`, true, "1.10"},
		{`"at":"/versions/1","atMost":"1.9"`, false, "1.10"},
		{`"at":"/versions/2","atMost":"2"`, true, "2"},

		{`"at":"/name","exists":true`, true, "something"},
		{`"at":"/name","exists":false`, false, "something"},
		{`"at":"/packages","exists":true`, true, "something"},
		{`"at":"/packages/3/name","exists":false`, true, "nothing"},
		{`"at":"/packages/9","exists":true`, false, "nothing"},
		{`"at":"/nothing","exists":true`, false, ""},
		{`"at":"/nothing","exists":false`, false, ""},
		{`"at":"/twice","exists":true`, false, "two values"},

		{`"at":"/packages","any":[{"at":"/name","is":"zlib"}]`, true, "1 of 4"},
		{`"at":"/packages","any":[{"at":"/name","is":"zlib"},{"at":"/version","atLeast":"1.3"}]`, true, "1 of 4"},
		{`"at":"/packages","any":[{"at":"/name","is":"zlib"},{"at":"/version","atLeast":"1.4"}]`, false, "0 of 4"},
		{`"at":"/packages","any":[{"at":"/licenses","any":[{"at":"/id","is":"MIT"}]}]`, true, "1 of 4"},
		{`"at":"/packages","none":[{"at":"/licenses","any":[{"at":"/id","matches":"A?GPL.*"}]}]`, true, "0 of 4"},
		{`"at":"/packages","none":[{"at":"/licenses","any":[{"at":"/id","matches":"Apache.*"}]}]`, false, "1 of 4"},
		{`"at":"/packages","none":[{"at":"/name","is":"log4j-core"}]`, true, "0 of 4"},
		{`"at":"/packages","none":[{"at":"/name","is":"openssl"},{"at":"/version","atMost":"3.0.14"}]`, true, "0 of 4"},
		{`"at":"/packages","none":[{"at":"/name","is":"openssl"},{"at":"/version","atMost":"3.0.15"}]`, false, "1 of 4"},
		{`"at":"/packages","all":[{"at":"/version","exists":true}]`, true, "4 of 4"},
		{`"at":"/packages","all":[{"at":"/name","exists":true}]`, false, "3 of 4"},
		{`"at":"/packages","all":[{"at":"/name","matches":".*"}]`, false, "3 of 4"},
		{`"at":"/versions","all":[{"atLeast":"1.2"}]`, true, "3 of 3"},
		{`"at":"/versions","all":[{"at":"","atLeast":"1.3"}]`, false, "2 of 3"},
		{`"at":"/findings","none":[{"at":"/score","atLeast":7}]`, false, "1 of 2"},
		{`"at":"/findings","none":[{"at":"/score","atLeast":9},{"at":"/severity","is":"high"}]`, true, "0 of 2"},

		// What is not there, or is no list, satisfies nothing, and an empty list not all.
		{`"at":"/absent","none":[{"is":"x"}]`, false, "nothing"},
		{`"at":"/absent","all":[{"is":"x"}]`, false, "nothing"},
		{`"at":"/name","none":[{"is":"x"}]`, false, "no list"},
		{`"at":"/empty","none":[{"is":"x"}]`, true, "0 of 0"},
		{`"at":"/empty","all":[{"is":"x"}]`, false, "0 of 0"},
		{`"at":"/empty","any":[{"is":"x"}]`, false, "0 of 0"},

		// What cannot be judged is never the absence of something.
		{`"at":"/odd","none":[{"at":"/name","is":"log4j"}]`, false, "cannot be judged"},
		{`"at":"/double","none":[{"at":"/name","is":"log4j"}]`, false, "cannot be judged"},
		{`"at":"/double","any":[{"at":"/name","is":"log4j"}]`, false, "cannot be judged"},
		{`"at":"/packages","none":[{"at":"/licenses","is":"x"}]`, false, "cannot be judged"},
	} {
		where, err := conditions([]byte(`[{` + tt.condition + `}]`))
		must(t, err)
		all, err := look(jsonstream.New(strings.NewReader(bom)), where)
		must(t, err)
		if got := all[0]; (got.outcome == held) != tt.holds || !strings.Contains(got.seen, tt.seen) {
			t.Errorf("%s: %v, %q", tt.condition, got.outcome, got.seen)
		}
	}
}

// Conditions about the same places and about places in each other are judged in
// one pass.
func TestConditionsInOnePass(t *testing.T) {
	where, err := conditions([]byte(`[{"at":"/packages","any":[{"at":"/name","is":"zlib"}]},{"at":"/packages","none":[{"at":"/name","is":"xz"}]},
		{"at":"/packages/0/name","is":"openssl"},{"at":"/packages/0","exists":true},{"at":"/packages/0/name","matches":"open.*"},{"at":"/count","is":3}]`))
	must(t, err)
	all, err := look(jsonstream.New(strings.NewReader(bom)), where)
	must(t, err)
	for _, f := range all {
		if f.outcome != held {
			t.Errorf("%s: %v, %q", f.c.at, f.outcome, f.seen)
		}
	}
}

func TestLongTexts(t *testing.T) {
	for n, outcome := range map[int]outcome{maxValue: held, maxValue + 1: unclear} {
		where, err := conditions([]byte(`[{"at":"/a","matches":"x+"}]`))
		must(t, err)
		all, err := look(jsonstream.New(strings.NewReader(`{"a":"`+strings.Repeat("x", n)+`"}`)), where)
		if err != nil || all[0].outcome != outcome || len(all[0].seen) > maxSeen {
			t.Errorf("%d bytes: %+v, %v", n, all, err)
		}
	}
}

func TestParseConditions(t *testing.T) {
	deep := `{"at":"/a","is":1}`
	for range maxNesting + 1 {
		deep = `{"at":"/a","any":[` + deep + `]}`
	}
	for text, reason := range map[string]string{
		`{"at":"/a","any":[]}`: "no condition", `{"at":"/a","none":{}}`: "none", `{"at":"/a","any":[{"is":{}}]}`: "a text", `{"at":"","is":1}`: "JSON pointer", `{"is":1}`: "JSON pointer",
		`{"at":"/a","exists":null}`: "exists", `{"at":"/a","exists":1}`: "exists", `{"at":"/a","oneOf":[]}`: "0 texts", `{"at":"/a","oneOf":[1]}`: "oneOf",
		`{"at":"/a","atMost":true}`: "a version or a number", `{"at":"/a","atMost":null}`: "a version or a number", `{"at":"/a","atMost":"x"}`: "numbers with dots", `{"at":"/a","atLeast":""}`: "numbers with dots",
		`{"at":"/a","any":[{"is":1}],"none":[{"is":1}]}`: "exactly one", `{"at":"/a","is":` + strings.Repeat("9", 65) + `}`: "too long", `{"at":"/a","any":[{"at":"b","is":1}]}`: "JSON pointer",
		deep: "nested", strings.TrimSuffix(strings.Repeat(`{"at":"/a","is":1},`, maxConditions+1), ","): "more than", `{"at":"` + strings.Repeat("/a", maxSteps+1) + `","is":1}`: "steps",
		`{"at":"/a","any":[` + strings.TrimSuffix(strings.Repeat(`{"is":1},`, maxConditions), ",") + `]}`: "more than",
		`{"at":"/` + strings.Repeat("a", maxPointer) + `","is":1}`:                                        "JSON pointer",
	} {
		if _, err := conditions([]byte("[" + text + "]")); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.100s: got %v, want %q", text, err, reason)
		}
	}
}

// find returns the value that a pointer names, or false.
func find(v any, path []string) (any, bool) {
	for _, name := range path {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) || strconv.Itoa(i) != name {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// Conditions that are judged in a stream see what is there in the document as a
// whole, and of a list no element both is and is not.
func FuzzConditions(f *testing.F) {
	f.Add([]byte(bom), []byte(`[{"at":"/packages","any":[{"at":"/name","is":"zlib"}]}]`), "/packages/0/name", "openssl")
	f.Add([]byte(built), []byte(`[{"at":"/a","atMost":7}]`), "/runDetails/a~1b/~0", "x")
	f.Add([]byte(`[`+strings.Repeat("0,", 255)+`0]`), []byte(`[{"at":"/255","atLeast":1e999}]`), "/255", "0")
	f.Add([]byte(`{"":{"":""}}`), []byte(`[]`), "//", "")
	f.Fuzz(func(t *testing.T, doc, list []byte, at, want string) {
		if where, err := conditions(list); err == nil {
			_, _ = look(jsonstream.New(bytes.NewReader(doc)), where) // neither panics nor hangs
		}
		path, err := splitPointer(at)
		if err != nil || strictjson.CheckExact(doc) != nil {
			return
		}
		quoted, err := json.Marshal(want)
		must(t, err)
		pointer, err := json.Marshal(at)
		must(t, err)
		where, err := conditions(fmt.Appendf(nil, `[{"at":%[1]s,"is":%[2]s},{"at":%[1]s,"exists":true},{"at":%[1]s,"any":[{"is":%[2]s}]},{"at":%[1]s,"none":[{"is":%[2]s}]}]`, pointer, quoted))
		if err != nil { // a text that does not survive being JSON
			return
		}
		all, err := look(jsonstream.New(bytes.NewReader(doc)), where)
		if err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		must(t, json.Unmarshal(quoted, &want)) // without what is no UTF-8
		var whole any
		d := json.NewDecoder(bytes.NewReader(doc))
		d.UseNumber()
		must(t, d.Decode(&whole))
		value, there := find(whole, path)
		text, isText := value.(string)
		if len(text) <= maxValue && (all[0].outcome == held) != (isText && text == want) {
			t.Fatalf("%q at %q: %+v, and it is %v", doc, at, all[0], value)
		}
		if (all[1].outcome == held) != (there && value != nil) {
			t.Fatalf("%q at %q: %+v, and it is %v", doc, at, all[1], value)
		}
		elements, isList := value.([]any)
		some, none := all[2].outcome == held, all[3].outcome == held
		if some && none || !isList && (some || none) || isList && len(elements) == 0 && !none {
			t.Fatalf("%q at %q: any %+v, none %+v", doc, at, all[2], all[3])
		}
	})
}
