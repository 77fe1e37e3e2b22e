package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
)

// Route is one endpoint: everything that the broker enforces about it and
// everything that it publishes about it. The muxes, the roles, the labels of
// the metrics and the OpenAPI document are all made from this table, so an
// endpoint that is not in the table cannot exist and one that is cannot go
// undocumented.
//
// To add endpoints, write their rows in the file of their room
// (routes_<room>.go) as a function that returns []Route, and name that
// function in [Routes]. Give the success answers with ok or noContent, the
// request with jsonBody or rawBody, and in Codes the refusals that come from
// the handler itself; those that every caller can meet are added by
// [Route.AllCodes]. Then drive the endpoint once in a test through stage.send:
// it holds each answer, of every test, against the document, and
// TestEveryRouteIsDriven fails until a success of the new row was seen.
// `make generate` writes docs/reference/openapi.json and api.md anew.
type Route struct {
	Pattern string // as http.ServeMux takes it: "GET /v1/tickets/{ticket}"
	ID      string // operationId, camel case, unique
	Summary string // one sentence without a full stop
	Access  Access
	On      Listener
	Query   []Query
	Request Body
	Answers []Answer     // successes only
	Codes   []fault.Code // refusals that are particular to this route
	Rate    limit.Class  // what a request counts as for its address
	// Change names what the route does to what, such as policy.put: by this name
	// a tenant can want a second person for it. Whatever an administrator can
	// change has one, unless waiting would be harmful.
	Change string
	// System marks what belongs to the broker as a whole. Only the tenant
	// "default" has it, and a role must count for all tenants.
	System bool

	stage operation // the stage that tickets show; opAdmin by default
	admin func(*Server, http.ResponseWriter, *http.Request, admin.Identity) error
	// version reads the version of what a Change is about, 0 if there is nothing;
	// nil where it has none.
	version func(s *Server, r *http.Request, body []byte) (int64, error)
	open    func(*Server, http.ResponseWriter, *http.Request) error
}

// Access says who may call a route: anyone, a guest with an attestation token,
// or an administrator whose role includes that of this name.
type Access string

// The accesses that are no roles.
const (
	Public   Access = "public"
	Attested Access = "guest"
	Known    Access = "administrator" // of any role, or none

	viewer   = Access(admin.Viewer)
	operator = Access(admin.Operator)
	approver = Access(admin.Approver)
	auditor  = Access(admin.Auditor)
	owner    = Access(admin.Owner)
)

// Listener is a set of listeners.
type Listener uint8

// The listeners. What is not meant for a listener is not there.
const (
	OnGuest Listener = 1 << iota
	OnAdmin
	OnMetrics
)

// Query is a query parameter.
type Query struct {
	Name, Summary string
	Of            any // a value of its type: "" or int64(0)
}

// Body is what a request or an answer carries.
type Body struct {
	Type     string   // media type; "" for none
	Of       any      // a value of the Go type of a JSON body; nil for raw bytes
	Required []string // members that a request must have; answers have what their type always writes
}

// Answer is a success.
type Answer struct {
	Status int
	Body
}

const typeJSON = "application/json"

func jsonBody(of any, required ...string) Body { return Body{typeJSON, of, required} }
func rawBody(contentType string) Body          { return Body{Type: contentType} }
func ok(b Body) []Answer                       { return []Answer{{http.StatusOK, b}} }
func noContent() []Answer                      { return []Answer{{Status: http.StatusNoContent}} }
func codes(all ...fault.Code) []fault.Code     { return all }
func prefixQuery(what string) []Query {
	return []Query{{"prefix", "only " + what + " that begin with this", ""}}
}
func (r Route) v0() bool                     { return strings.HasPrefix(r.Path(), api.PathPrefix) }
func (r Route) isAdmin() bool                { return r.admin != nil }
func (r Route) split() (method, path string) { return splitPattern(r.Pattern) }

// Path is the pattern without its method.
func (r Route) Path() string { _, path := r.split(); return path }

func splitPattern(pattern string) (method, path string) {
	if method, path, ok := strings.Cut(pattern, " "); ok {
		return method, path
	}
	return "", pattern
}

// Routes is the table. Each room has a file of its own.
func Routes() []Route {
	return slices.Concat(
		handshakeRoutes(),
		fieldRoutes(),
		policyRoutes(),
		refValueRoutes(),
		refSetRoutes(),
		resourceRoutes(),
		tokenRoutes(),
		ticketRoutes(),
		adminRoutes(),
		guestRevocationRoutes(),
		leaseRoutes(),
		appraisalRoutes(),
		tenantRoutes(),
		approvalRoutes(),
		auditRoutes(),
		healthRoutes(),
		documentRoutes(),
		absentRoutes(),
	)
}

// answers are all successes: also that a change waits for a second person.
func (r Route) answers() []Answer {
	if r.Change == "" {
		return r.Answers
	}
	waits := jsonBody(api.Approval{})
	if r.v0() {
		waits = jsonBody(api.ErrorInformation{})
	}
	return append(slices.Clone(r.Answers), Answer{http.StatusAccepted, waits})
}

// AllCodes are all refusals that a caller of the route can meet.
func (r Route) AllCodes() []fault.Code {
	all := append(codes(fault.InvalidRequest, fault.NotFound, fault.Internal), r.Codes...)
	if r.Request.Type != "" {
		all = append(all, fault.TooLarge)
	}
	switch {
	case r.isAdmin():
		if r.Change != "" {
			all = append(all, fault.QuotaExceeded, fault.Conflict)
		}
		all = append(all, fault.Unauthenticated, fault.Forbidden, fault.Unavailable, fault.TooMany)
	case r.Access == Attested:
		all = append(all, fault.TokenInvalid, fault.GuestRevoked, fault.Unavailable, fault.TooMany)
	case r.Rate != limit.None:
		all = append(all, fault.Unavailable, fault.TooMany)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// mount fills a mux with those routes that are for a listener.
func (s *Server) mount(routes []Route, on Listener) *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range routes {
		if r.On&on != 0 && (!r.System || s.System != nil) {
			mux.Handle(r.Pattern, s.endpoint(r))
		}
	}
	return mux
}

// endpoint is the handler of a route behind its role and its form of errors.
func (s *Server) endpoint(r Route) http.Handler {
	h := func(w http.ResponseWriter, req *http.Request) error { return r.open(s, w, req) }
	if r.isAdmin() {
		h = s.as(r, func(w http.ResponseWriter, req *http.Request, who admin.Identity) error {
			return r.admin(s, w, req, who)
		})
	}
	named := func(w http.ResponseWriter, req *http.Request) error {
		observe.Operation(req.Context(), r.ID)
		if r.Rate != limit.None {
			if err := s.Guard.Take(r.Rate, limit.Client(req.Context())); err != nil {
				return err
			}
		}
		return h(w, req)
	}
	stage := r.stage
	if stage == "" {
		stage = opAdmin
	}
	if r.v0() {
		return s.v0(stage, named)
	}
	return s.v1(stage, named)
}

// absentRoutes answer for what is not there, in the form of the protocol that
// was asked (kbs-protocol 2.1: an unknown first segment is an unknown plugin).
func absentRoutes() []Route {
	absent := func(*Server, http.ResponseWriter, *http.Request) error {
		return fault.Newf(fault.NotFound, "no such endpoint")
	}
	return []Route{
		{Pattern: api.PathPrefix + "/{path...}", ID: "plugin", Summary: "Any other name under /kbs/v0 is a plugin's, which says who may ask; where there is none, it is unknown",
			Access: Public, On: OnGuest | OnAdmin, Request: rawBody("application/octet-stream"), Answers: append(ok(rawBody(plainType)), ok(jsonBody(api.JWE{}))...),
			Codes:  codes(fault.MethodNotAllowed, fault.TokenInvalid, fault.GuestRevoked, fault.PolicyDenied, fault.PolicyError, fault.Unauthenticated, fault.Forbidden, fault.QuotaExceeded, fault.Unavailable),
			Change: changePlugin, stage: opRelease, open: (*Server).plugin},
		{Pattern: "/{path...}", ID: "absent", Summary: "Nothing else is here",
			Access: Public, On: OnGuest | OnAdmin | OnMetrics, open: absent},
	}
}
