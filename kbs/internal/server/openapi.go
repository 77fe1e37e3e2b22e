package server

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/openapi"
)

// documentPath is where administrators find the description of the API.
const documentPath = "/openapi.json"

func documentRoutes() []Route {
	return []Route{{Pattern: "GET " + documentPath, ID: "openapi", Summary: "This document",
		Access: Public, On: OnAdmin, Answers: ok(jsonBody(map[string]any{})), open: (*Server).serveDocument}}
}

// Document describes every route. Its bytes are the same for every broker of
// one version.
func Document() []byte {
	raw, err := json.MarshalIndent(Describe(Routes()), "", "  ")
	if err != nil {
		panic("server: the document cannot be encoded: " + err.Error()) // maps of strings
	}
	return append(raw, '\n')
}

func (s *Server) serveDocument(w http.ResponseWriter, _ *http.Request) error {
	s.answer(w, http.StatusOK, typeJSON, s.document())
	return nil
}

// Names of the ways to show who one is.
const (
	schemeAdmin   = "adminToken"
	schemeToken   = "attestationToken"
	schemeSession = "session"
)

// Describe makes the OpenAPI document of a table of routes.
func Describe(routes []Route) openapi.Document {
	schemas := openapi.NewSchemas()
	d := openapi.Document{
		OpenAPI: openapi.Version,
		Info: openapi.Info{
			Title: "Vouchsafe key broker", Version: "1",
			Description: "The field's KBS protocol under /kbs/v0 and the broker's own API under /v1. x-listeners tells on which of the " +
				"broker's listeners an operation is, x-access who may call it: anyone (public), an attested guest (guest), or an " +
				"administrator of at least that role.",
		},
		Paths: map[string]map[string]openapi.Operation{},
		Components: openapi.Components{Schemas: schemas.All, SecuritySchemes: map[string]openapi.SecurityScheme{
			schemeAdmin:   {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "a credential of an administrator"},
			schemeToken:   {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "an attestation token"},
			schemeSession: {Type: "apiKey", In: "cookie", Name: api.SessionCookie, Description: "the session of a handshake that succeeded"},
		}},
	}
	for _, r := range routes {
		path, parameters := pathOf(r)
		if d.Paths[path] == nil {
			d.Paths[path] = map[string]openapi.Operation{}
		}
		method, _ := r.split()
		for _, m := range methods(method) {
			o := operationOf(schemas, r)
			o.Parameters = append(slices.Clone(parameters), o.Parameters...)
			if method == "" && m != "get" {
				o.ID += "_" + m
			}
			d.Paths[path][m] = o
		}
	}
	return d
}

// methods of a pattern; one without a method stands for those of the field.
func methods(method string) []string {
	if method == "" {
		return []string{"get", "post", "put", "delete"}
	}
	return []string{strings.ToLower(method)}
}

var wildcard = regexp.MustCompile(`\{([a-z_]+)(\.\.\.)?\}`)

// pathOf writes a pattern's path as OpenAPI does.
func pathOf(r Route) (string, []openapi.Parameter) {
	var out []openapi.Parameter
	for _, m := range wildcard.FindAllStringSubmatch(r.Path(), -1) {
		out = append(out, openapi.Parameter{
			Name: m[1], In: "path", Required: true, Schema: &openapi.Schema{Type: "string"}, Slashes: m[2] != "",
		})
	}
	return wildcard.ReplaceAllString(r.Path(), "{$1}"), out
}

func operationOf(schemas *openapi.Schemas, r Route) openapi.Operation {
	o := openapi.Operation{
		ID: r.ID, Summary: r.Summary, Access: string(r.Access), Security: security(r), Listeners: listeners(r.On),
		Responses: map[string]openapi.Response{},
	}
	for _, q := range r.Query {
		o.Parameters = append(o.Parameters, openapi.Parameter{
			Name: q.Name, In: "query", Description: q.Summary, Schema: schemas.Of(q.Of),
		})
	}
	if r.Request.Type != "" {
		o.RequestBody = &openapi.RequestBody{Required: true, Content: content(schemas.Input(r.Request.Required), r.Request)}
	}
	for _, a := range r.answers() {
		status := strconv.Itoa(a.Status)
		forms := content(schemas, a.Body)
		maps.Copy(forms, o.Responses[status].Content) // one status may have answers of several types
		o.Responses[status] = openapi.Response{Description: http.StatusText(a.Status), Content: forms}
	}
	for status, all := range byStatus(r.AllCodes()) {
		if _, taken := o.Responses[strconv.Itoa(status)]; !taken {
			o.Responses[strconv.Itoa(status)] = refused(schemas, r, status, all)
		}
	}
	return o
}

func content(schemas *openapi.Schemas, b Body) map[string]openapi.Media {
	if b.Type == "" {
		return map[string]openapi.Media{}
	}
	var m openapi.Media
	if b.Of != nil {
		m.Schema = schemas.Of(b.Of)
	}
	return map[string]openapi.Media{b.Type: m}
}

func byStatus(all []fault.Code) map[int][]string {
	out := map[int][]string{}
	for _, c := range all {
		out[c.Status()] = append(out[c.Status()], string(c))
	}
	return out
}

// refused describes the refusals that share a status: the body of the route's
// protocol, with one of these codes.
func refused(schemas *openapi.Schemas, r Route, status int, all []string) openapi.Response {
	body := jsonBody(api.ErrorInformation{})
	if !r.v0() {
		body = Body{Type: typeProblem, Of: api.Problem{}}
	}
	media := content(schemas, body)
	m := media[body.Type]
	m.Schema = &openapi.Schema{AllOf: []*openapi.Schema{m.Schema, {Properties: map[string]*openapi.Schema{
		"code": {Type: "string", Enum: all},
	}}}}
	media[body.Type] = m
	out := openapi.Response{Description: http.StatusText(status) + ": " + strings.Join(all, ", "), Content: media}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		out.Headers = map[string]openapi.Header{"Retry-After": {Description: "seconds", Schema: &openapi.Schema{Type: "integer"}}}
	}
	return out
}

func security(r Route) []map[string][]string {
	switch {
	case r.isAdmin():
		return []map[string][]string{{schemeAdmin: {}}}
	case r.Access == Attested:
		return []map[string][]string{{schemeToken: {}}, {schemeSession: {}}}
	default:
		return []map[string][]string{}
	}
}

func listeners(on Listener) []string {
	var out []string
	for _, l := range []struct {
		bit  Listener
		name string
	}{{OnGuest, nameGuests}, {OnAdmin, nameAdmins}, {OnMetrics, nameMetrics}} {
		if on&l.bit != 0 {
			out = append(out, l.name)
		}
	}
	return out
}
