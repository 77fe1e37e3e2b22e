package server

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Handlers serve one tenant.
type Handlers struct {
	Guest http.Handler // the guests' listener
	Admin http.Handler // the administrators' listener
}

// Handlers returns both handlers of a tenant.
func (s *Server) Handlers() Handlers { return Handlers{s.Guest(), s.Admin()} }

// ErrNoTenant says that a tenant does not exist or does not take part: nobody
// outside learns which.
var ErrNoTenant = errors.New("no such tenant")

// Tenants finds what serves a tenant.
type Tenants interface {
	// Handlers returns ErrNoTenant for a tenant that is unknown or suspended.
	Handlers(ctx context.Context, tenant string) (Handlers, error)
	// OfHost returns the tenant that a Host header names; "" if it names none.
	OfHost(ctx context.Context, host string) (string, error)
}

// Front sends each request to its tenant. A host name of a tenant's own decides
// alone; elsewhere the path may begin with /t/TENANT/, and whoever names no
// tenant means the default one. No other header has a say: what stands in
// front of a broker keeps Host or does not know tenants.
type Front struct {
	tenants  Tenants
	standard string  // the tenant of whoever names none
	lost     *Server // answers for tenants that are not there
}

// NewFront returns a front whose answers for nobody come from lost.
func NewFront(tenants Tenants, standard string, lost *Server) *Front {
	return &Front{tenants: tenants, standard: standard, lost: lost}
}

// Guest returns the handler of the guests' listener.
func (f *Front) Guest() http.Handler {
	return f.handler(nameGuests, func(h Handlers) http.Handler { return h.Guest })
}

// Admin returns the handler of the administrators' listener.
func (f *Front) Admin() http.Handler {
	return f.handler(nameAdmins, func(h Handlers) http.Handler { return h.Admin })
}

func (f *Front) handler(listener string, side func(Handlers) http.Handler) http.Handler {
	lost := f.lost.around(listener, f.lost.mount(absentRoutes(), OnGuest))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, r, err := f.route(r)
		var h Handlers
		if err == nil {
			h, err = f.tenants.Handlers(r.Context(), to)
		}
		switch {
		case errors.Is(err, ErrNoTenant):
			lost.ServeHTTP(w, r)
		case err != nil:
			f.lost.around(listener, f.lost.v1(opRelease, func(http.ResponseWriter, *http.Request) error {
				return fault.Newf(fault.Unavailable, "tenant: %w", err)
			})).ServeHTTP(w, r)
		default:
			side(h).ServeHTTP(w, r)
		}
	})
}

// route returns the tenant of a request, and the request as the tenant sees it.
func (f *Front) route(r *http.Request) (string, *http.Request, error) {
	owner, err := f.tenants.OfHost(r.Context(), r.Host)
	if err != nil {
		return "", r, err
	}
	if owner != "" {
		return owner, r, nil
	}
	name, rest, ok := cutTenant(r.URL.EscapedPath())
	if !ok {
		return f.standard, r, nil
	}
	base := api.PathTenant + name
	r = r.WithContext(context.WithValue(r.Context(), baseKey{}, base))
	u := *r.URL
	u.Path = strings.TrimPrefix(u.Path, base)
	u.RawPath = strings.TrimPrefix(u.RawPath, base)
	if rest == "" || u.Path == "" {
		u.Path, u.RawPath = "/", ""
	}
	r.URL = &u
	return name, r, nil
}

// cutTenant splits the raw path /t/TENANT/rest. A name with an escape in it
// names nobody.
func cutTenant(raw string) (name, rest string, ok bool) {
	after, ok := strings.CutPrefix(raw, api.PathTenant)
	if !ok {
		return "", "", false
	}
	name, rest, _ = strings.Cut(after, "/")
	return name, rest, true
}

type baseKey struct{}

// base is the path prefix under which the request came, "" or /t/TENANT.
func base(ctx context.Context) string {
	b, _ := ctx.Value(baseKey{}).(string)
	return b
}
