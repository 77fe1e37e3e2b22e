package hostile

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
)

// route is one operation of the published document.
type route struct {
	method, pattern string
	access          string // public, guest, or a role
	admins          bool   // it is on the administrators' listener alone
	json            bool
	fields          map[string]string // of the JSON body: JSON type by name
	query           []string
}

// existing fills the parameters of a pattern with objects that exist, so that
// what is wrong with a request is what the test made wrong.
var existing = map[string]string{
	"repo": "hostile", "type": "key", "tag": "1", "version": "1", "kind": "attestation", "id": "default_cpu", "name": "canary",
	"tenant": "default", "approval": "none", "ticket": "AAAA-AAAA", "path": "nothing",
}

// steady matches what changes by itself in the lists of the API.
var steady = regexp.MustCompile(`"(last_queried|last_released|released)":("[^"]*"|[0-9]+|\{[^}]*\}),?`)

var parameter = regexp.MustCompile(`\{(\w+)\}`)

// routes reads the document that the broker's table of routes was published as;
// a test beside that table keeps both the same.
func (s *stage) routes() []route {
	s.Helper()
	raw, err := os.ReadFile("../../docs/reference/openapi.json")
	if err != nil {
		s.Fatal(err)
	}
	type schema struct {
		Ref   string `json:"$ref"`
		AllOf []struct {
			Ref string `json:"$ref"`
		}
		Properties map[string]struct{ Type string }
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Access     string   `json:"x-access"`
			Listeners  []string `json:"x-listeners"`
			Parameters []struct{ Name, In string }
			Request    struct {
				Content map[string]struct{ Schema schema }
			} `json:"requestBody"`
		}
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		s.Fatal(err)
	}
	var out []route
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method, o := range doc.Paths[path] {
			if slices.Equal(o.Listeners, []string{"metrics"}) {
				continue // it is not served here
			}
			r := route{method: strings.ToUpper(method), pattern: path, access: o.Access, admins: !slices.Contains(o.Listeners, "guests"), fields: map[string]string{}}
			for _, p := range o.Parameters {
				if p.In == "query" {
					r.query = append(r.query, p.Name)
				}
			}
			if c, ok := o.Request.Content["application/json"]; ok {
				r.json = true
				refs := slices.Concat(c.Schema.AllOf, []struct {
					Ref string `json:"$ref"`
				}{{c.Schema.Ref}})
				for _, ref := range refs {
					for name, p := range doc.Components.Schemas[ref.Ref[strings.LastIndexByte(ref.Ref, '/')+1:]].Properties {
						r.fields[name] = p.Type
					}
				}
			}
			out = append(out, r)
		}
	}
	if len(out) < 60 {
		s.Fatalf("the document has only %d routes", len(out))
	}
	return out
}

func (r route) writes() bool { return r.method == http.MethodPost || r.method == http.MethodPut }

// request is a request for what exists, with the credential that it needs.
func (s *stage) request(r route, guestToken string) request {
	out := request{method: r.method, path: r.fill("", ""), admins: r.admins}
	switch r.access {
	case "public":
	case "guest":
		out.bearer = guestToken
	default:
		out.bearer = s.admin
	}
	return out
}

// fill returns the path for objects that exist, but with a text of the
// caller's for one of the parameters.
func (r route) fill(name, text string) string {
	return parameter.ReplaceAllStringFunc(r.pattern, func(p string) string {
		if p = strings.Trim(p, "{}"); p == name {
			return text
		}
		return existing[p]
	})
}
