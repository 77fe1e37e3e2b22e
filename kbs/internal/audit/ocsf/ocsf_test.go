package ocsf

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
)

// validate holds a JSON value against the part of JSON Schema that the
// published document uses, read back from its bytes; a word that it does not
// know is an error.
func validate(s, v any, at string) error {
	rules := s.(map[string]any)
	var all []error
	bad := func(format string, args ...any) {
		all = append(all, fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...)))
	}
	object, isObject := v.(map[string]any)
	for word, rule := range rules {
		switch word {
		case "$schema", "$id", "title", "description", "then":
		case "type":
			if got := typeOf(v); got != rule {
				bad("is %s, not %s", got, rule)
			}
		case "const":
			if !reflect.DeepEqual(v, rule) {
				bad("is %v, not %v", v, rule)
			}
		case "enum":
			if !slices.ContainsFunc(rule.([]any), func(x any) bool { return reflect.DeepEqual(x, v) }) {
				bad("%v is none of %v", v, rule)
			}
		case "required":
			for _, name := range rule.([]any) {
				if _, ok := object[name.(string)]; !ok {
					bad("%s is missing", name)
				}
			}
		case "properties":
			for name, sub := range rule.(map[string]any) {
				if member, ok := object[name]; ok {
					all = append(all, validate(sub, member, at+"/"+name))
				}
			}
		case "additionalProperties":
			known, _ := rules["properties"].(map[string]any)
			for name, member := range object {
				if _, ok := known[name]; ok {
					continue
				}
				if rule == false {
					bad("%s is not described", name)
				} else {
					all = append(all, validate(rule, member, at+"/"+name))
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, e := range list {
				all = append(all, validate(rule, e, fmt.Sprintf("%s/%d", at, i)))
			}
		case "allOf":
			for _, sub := range rule.([]any) {
				all = append(all, validate(sub, v, at))
			}
		case "if":
			if validate(rule, v, at) == nil {
				all = append(all, validate(rules["then"], v, at))
			}
		default:
			bad("the validator does not know %s", word)
		}
	}
	if !isObject && (rules["required"] != nil || rules["properties"] != nil) {
		bad("is no object")
	}
	return errors.Join(all...)
}

func typeOf(v any) string {
	switch x := v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if x == float64(int64(x)) {
			return "integer"
		}
		return "number"
	}
	return "null"
}

func decode(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

var source = Source{Log: "vouchsafe-kbs/0123456789abcdef", Version: "1.2.3"}

// event goes through JSON, as a receiver sees it.
func event(t *testing.T, e api.AuditEntry) map[string]any {
	t.Helper()
	leaf, err := jcs.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(source.Event(e, leaf))
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, raw).(map[string]any)
}

// Every kind with every decision, with all members and with none, is as the
// schema says.
func TestEventsAreAsTheSchemaSays(t *testing.T) {
	s := decode(t, Schema())
	for _, k := range api.AuditKinds() {
		for _, decision := range []string{"allow", "deny", "error", "change"} {
			for _, e := range []api.AuditEntry{
				{Kind: k.Kind, Decision: decision},
				{
					Index: 1 << 40, Time: time.UnixMilli(1921641845123).UTC(), Kind: k.Kind, Decision: decision, Code: "policy_denied", Ticket: "7QK2-M9TD",
					Subject: "snp/8f2c", Object: "resource/a/b/c", Tenant: "red", Details: map[string]string{"k": "v"},
				},
			} {
				if err := validate(s, event(t, e), ""); err != nil {
					t.Errorf("%s %s: %v", k.Kind, decision, err)
				}
			}
		}
	}
}

// The validator finds what is wrong: a schema that accepts everything would
// pass the test above.
func TestTheSchemaRefuses(t *testing.T) {
	s := decode(t, Schema())
	good := api.AuditEntry{Kind: api.AuditRelease, Decision: "allow", Subject: "g", Object: "resource/a/b/c"}
	for name, spoil := range map[string]func(map[string]any){
		"a member too many":      func(e map[string]any) { e["x"] = 1.0 },
		"no metadata":            func(e map[string]any) { delete(e, "metadata") },
		"another class":          func(e map[string]any) { e["class_uid"] = 1.0 },
		"no actor":               func(e map[string]any) { delete(e, "actor") },
		"activity of none":       func(e map[string]any) { e["activity_id"] = 7.0 },
		"name of another class":  func(e map[string]any) { e["class_name"] = "Authentication" },
		"text for a number":      func(e map[string]any) { e["time"] = "now" },
		"kind of none":           func(e map[string]any) { e["metadata"].(map[string]any)["event_code"] = "x" },
		"another version":        func(e map[string]any) { e["metadata"].(map[string]any)["version"] = "1.0.0" },
		"a resource of no name":  func(e map[string]any) { e["resources"] = []any{map[string]any{"type": "x"}} },
		"details that are lists": func(e map[string]any) { e["unmapped"].(map[string]any)["details"] = map[string]any{"a": []any{}} },
	} {
		e := event(t, good)
		if err := validate(s, e, ""); err != nil {
			t.Fatal(err)
		}
		spoil(e)
		if validate(s, e, "") == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMapping(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC)
	for name, c := range map[string]struct {
		entry api.AuditEntry
		want  map[string]any // by path
	}{
		"attestation": {
			api.AuditEntry{Index: 7, Time: at, Kind: api.AuditAttest, Decision: "allow", Subject: "snp/1", Object: "token/x"},
			map[string]any{
				"class_uid": 3002.0, "type_uid": 300201.0, "severity_id": 1.0, "status_id": 1.0, "time": float64(at.UnixMilli()),
				"user.name": "snp/1", "user.type_id": 99.0, "service.name": "kbs", "metadata.sequence": 7.0,
				"metadata.uid": source.Log + "/7", "metadata.tenant_uid": "default",
			},
		},
		"refusal": {
			api.AuditEntry{Kind: api.AuditRelease, Decision: "deny", Code: "policy_denied", Ticket: "7QK2-M9TD", Subject: "snp/1", Object: "resource/a/b/c", Tenant: "red"},
			map[string]any{
				"class_uid": 6003.0, "activity_name": "Read", "status_id": 2.0, "status_code": "policy_denied", "severity_id": 3.0,
				"metadata.correlation_uid": "7QK2-M9TD", "metadata.tenant_uid": "red", "api.operation": "release", "actor.user.uid": "snp/1",
				"message": "release deny policy_denied resource/a/b/c by snp/1",
			},
		},
		"change": {
			api.AuditEntry{Kind: api.AuditPolicyDelete, Decision: "change", Subject: "admin:eve", Object: "policy/x"},
			map[string]any{"class_uid": 6003.0, "activity_id": 4.0, "severity_id": 2.0, "actor.user.name": "eve", "actor.user.type_id": 1.0},
		},
		"start": {
			api.AuditEntry{Kind: api.AuditBrokerStart, Decision: "change", Subject: "kbs"},
			map[string]any{"class_uid": 6002.0, "activity_id": 3.0, "app.version": "1.2.3", "actor.user.type_id": 3.0},
		},
		"failure": {api.AuditEntry{Kind: api.AuditAdmin, Decision: "error"}, map[string]any{"class_uid": 3002.0, "status_id": 2.0, "severity_id": 4.0, "user.uid": "unknown"}},
	} {
		e := event(t, c.entry)
		for path, want := range c.want {
			var got any = e
			for _, p := range strings.Split(path, ".") {
				got = got.(map[string]any)[p]
			}
			if got != want {
				t.Errorf("%s: %s is %v, not %v", name, path, got, want)
			}
		}
		leaf, err := jcs.Marshal(c.entry)
		if err != nil || e["raw_data"] != string(leaf) {
			t.Errorf("%s: raw_data %v, not %s: %v", name, e["raw_data"], leaf, err)
		}
	}
}

func TestPageHasEveryKind(t *testing.T) {
	page := Page()
	for _, k := range api.AuditKinds() {
		if !strings.Contains(page, "\n| `"+string(k.Kind)+"` |") {
			t.Errorf("%s is missing", k.Kind)
		}
	}
}
