package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/openapi"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// contract is the published document, read back from its bytes as a stranger
// would read it. It shares no code with what wrote it but the struct tags.
type contract struct {
	doc   openapi.Document
	muxes map[string]*http.ServeMux // by listener

	mu     sync.Mutex
	driven map[string]bool // operations of which a success was seen
}

var published = sync.OnceValues(func() (*contract, error) {
	c := &contract{muxes: map[string]*http.ServeMux{}, driven: map[string]bool{}}
	if err := json.Unmarshal(server.Document(), &c.doc); err != nil {
		return nil, err
	}
	for path, operations := range c.doc.Paths {
		for method, o := range operations {
			pattern := strings.ToUpper(method) + " " + path
			for _, p := range o.Parameters {
				if p.Slashes {
					pattern = strings.Replace(pattern, "{"+p.Name+"}", "{"+p.Name+"...}", 1)
				}
			}
			for _, l := range o.Listeners {
				if c.muxes[l] == nil {
					c.muxes[l] = http.NewServeMux()
				}
				c.muxes[l].Handle(pattern, found(o))
			}
		}
	}
	return c, nil
})

// found is an operation in a mux that is only asked, never served.
type found openapi.Operation

func (found) ServeHTTP(http.ResponseWriter, *http.Request) {}

// hold fails the test if an exchange is not as the document says. A request
// is held against it only when it was accepted: what is accepted must be
// described, what is refused may be anything.
func (c *contract) hold(t testing.TB, listener string, req *http.Request, sent []byte, a answer) {
	t.Helper()
	if req.Method == http.MethodHead {
		return // has no body, and is nowhere described: refused before any route
	}
	if strings.HasPrefix(req.URL.Path, api.PathPrefix+"/") { // decoded before it is cut (kbs-protocol 2.1)
		req = req.Clone(req.Context())
		req.URL.RawPath = ""
		if strings.Count(req.URL.Path, "/") == 4 { // the slash of an empty resource path
			req.URL.Path = strings.TrimSuffix(req.URL.Path, "/")
		}
	}
	h, _ := c.muxes[listener].Handler(req)
	o, ok := h.(found)
	if !ok {
		return // a path that the mux would clean: refused before any route
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s %s on the %s' listener (operation %s) answered %d, and %s",
			req.Method, req.URL.Path, listener, o.ID, a.status, fmt.Sprintf(format, args...))
	}
	r, ok := o.Responses[strconv.Itoa(a.status)]
	if !ok {
		fail("the document has only %v: %s", slices.Sorted(maps.Keys(o.Responses)), a.body)
		return
	}
	if err := c.holdBody(r.Content, a.header.Get("Content-Type"), a.body); err != nil {
		fail("%v: %s", err, a.body)
	}
	if a.status/100 != 2 {
		return
	}
	if o.RequestBody == nil && len(sent) > 0 {
		fail("a body was accepted that the document does not know: %s", sent)
	}
	if o.RequestBody != nil {
		for media := range o.RequestBody.Content {
			if err := c.holdBody(o.RequestBody.Content, media, sent); err != nil {
				fail("the request was accepted although %v: %s", err, sent)
			}
		}
	}
	for name := range req.URL.Query() {
		if !slices.ContainsFunc(o.Parameters, func(p openapi.Parameter) bool { return p.In == "query" && p.Name == name }) && o.Access != "guest" && o.ID != "plugin" { // a plugin takes what it takes
			fail("the query parameter %s is not in the document", name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.driven[o.ID] = true
}

func (c *contract) holdBody(content map[string]openapi.Media, contentType string, raw []byte) error {
	if content == nil {
		if len(raw) > 0 {
			return fmt.Errorf("no body is described")
		}
		return nil
	}
	media, ok := content[contentType]
	if !ok {
		return fmt.Errorf("%q is none of %v", contentType, slices.Sorted(maps.Keys(content)))
	}
	if media.Schema == nil {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(contentType); err != nil || !strings.HasSuffix(kind, "json") {
		return fmt.Errorf("%q has a schema and is no JSON", contentType)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	return c.conform("body", media.Schema, v)
}

// conform checks a value against a schema, and refuses members that the
// schema does not name: the document leaves its objects open so that they may
// grow, but what exists today must be in it today.
func (c *contract) conform(at string, s *openapi.Schema, v any) error {
	known := map[string]bool{}
	if err := c.check(at, s, v, known); err != nil {
		return err
	}
	members, ok := v.(map[string]any)
	if !ok || len(known) == 0 {
		return nil
	}
	for name := range members {
		if !known[name] {
			return fmt.Errorf("%s.%s is not described", at, name)
		}
	}
	return nil
}

func (c *contract) check(at string, s *openapi.Schema, v any, known map[string]bool) error {
	if s.Ref != "" {
		target, ok := c.doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
		if !ok {
			return fmt.Errorf("%s: %s leads nowhere", at, s.Ref)
		}
		return c.check(at, target, v, known)
	}
	for _, sub := range s.AllOf {
		if err := c.check(at, sub, v, known); err != nil {
			return err
		}
	}
	if s.AnyOf != nil && !slices.ContainsFunc(s.AnyOf, func(sub *openapi.Schema) bool { return c.conform(at, sub, v) == nil }) {
		return fmt.Errorf("%s is none of the forms", at)
	}
	if kind, wanted := kindOf(v), fmt.Sprint(s.Type); s.Type != nil && kind != wanted && (kind != "integer" || wanted != "number") {
		return fmt.Errorf("%s is of type %s, not %s", at, kind, wanted)
	}
	switch v := v.(type) {
	case string:
		return checkString(at, s, v)
	case []any:
		for i, item := range v {
			if s.Items == nil {
				break
			}
			if err := c.conform(fmt.Sprintf("%s[%d]", at, i), s.Items, item); err != nil {
				return err
			}
		}
	case map[string]any:
		return c.checkObject(at, s, v, known)
	}
	return nil
}

func checkString(at string, s *openapi.Schema, v string) error {
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return fmt.Errorf("%s is %q, none of %q", at, v, s.Enum)
	}
	if s.Format == "date-time" {
		if _, err := time.Parse(time.RFC3339, v); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	if s.ContentEncoding == "base64" {
		if _, err := base64.StdEncoding.DecodeString(v); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

func (c *contract) checkObject(at string, s *openapi.Schema, v map[string]any, known map[string]bool) error {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s.%s is missing", at, name)
		}
	}
	for name, member := range v {
		sub := s.Additional
		if p, ok := s.Properties[name]; ok {
			sub = p
		}
		if sub == nil {
			continue
		}
		known[name] = true
		if err := c.conform(at+"."+name, sub, member); err != nil {
			return err
		}
	}
	for name := range s.Properties {
		known[name] = true
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	default:
		return "object"
	}
}

// undriven lists the operations that have a success and of which no test of a
// whole run saw one.
func (c *contract) undriven() []string {
	var out []string
	for _, operations := range c.doc.Paths {
		for _, o := range operations {
			_, succeeds := o.Responses["200"]
			_, silent := o.Responses["204"]
			if (succeeds || silent) && !c.driven[o.ID] {
				out = append(out, o.ID)
			}
		}
	}
	slices.Sort(out)
	return out
}

// wholeRun reports whether every test of the package ran.
func wholeRun() bool {
	return !slices.ContainsFunc(os.Args, func(a string) bool {
		for _, some := range []string{"-test.run=", "-test.skip=", "-test.list=", "-test.fuzz=", "-test.bench="} {
			if value, ok := strings.CutPrefix(a, some); ok && value != "" {
				return true
			}
		}
		return false
	})
}

// The checker itself must be able to say no.
func TestContractNotices(t *testing.T) {
	c, err := published()
	if err != nil {
		t.Fatal(err)
	}
	jsonHeader := http.Header{"Content-Type": {"application/json"}}
	policies := `{"items":[{"kind":"resource","id":"x","version":1,"rego":"","time":"2026-01-02T03:04:05Z","in_force":true}]}`
	for name, a := range map[string]struct {
		answer answer
		noted  string
	}{
		"good":           {answer{200, jsonHeader, []byte(policies)}, ""},
		"other status":   {answer{418, jsonHeader, nil}, "the document has only"},
		"other type":     {answer{200, http.Header{"Content-Type": {"text/html"}}, nil}, "none of"},
		"missing member": {answer{200, jsonHeader, []byte(`{"items":[{}]}`)}, "is missing"},
		"unknown member": {answer{200, jsonHeader, []byte(`{"items":[],"more":1}`)}, "more is not described"},
		"wrong type":     {answer{200, jsonHeader, []byte(`{"items":{}}`)}, "type object"},
		"bad time":       {answer{200, jsonHeader, []byte(strings.Replace(policies, "2026", "xxxx", 1))}, "time"},
		"undescribed code": {answer{401, http.Header{"Content-Type": {"application/problem+json"}},
			[]byte(`{"type":"about:blank","title":"","status":401,"code":"nonce_mismatch"}`)}, "none of"},
	} {
		rec := &recordingTB{TB: t}
		c.hold(rec, "admins", &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/v1/policies"}}, nil, a.answer)
		if (a.noted == "") != (rec.text == "") || !strings.Contains(rec.text, a.noted) {
			t.Errorf("%s: noted %q", name, rec.text)
		}
	}
}

type recordingTB struct {
	testing.TB
	text string
}

func (*recordingTB) Helper() {}

func (r *recordingTB) Errorf(format string, args ...any) { r.text += fmt.Sprintf(format, args...) }
