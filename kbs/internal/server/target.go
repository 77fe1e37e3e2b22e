package server

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
)

// errMethod says that no address has the method that was asked for.
var errMethod = errors.New("no such method")

// fieldMethods are those of the field's protocol (kbs-protocol 2.1).
var fieldMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete}

// settleTarget brings the address of a request into the one form that routes,
// roles and policies see, or refuses it.
//
// A path under /kbs/v0 is decoded and then cut at its slashes, so an encoded
// slash is one. Paths that ServeMux would answer with a redirect are refused,
// and so is HEAD, which it would answer with a GET: a release whose answer is
// thrown away.
func settleTarget(r *http.Request) error {
	p := r.URL.Path
	if r.Method == http.MethodHead && !isHealth(p) {
		return fault.New(fault.MethodNotAllowed, errMethod)
	}
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	if p != clean || strings.ContainsAny(p, "\\\x00") {
		return fault.New(fault.InvalidRequest, resource.ErrPath)
	}
	if p == api.PathPrefix {
		return fault.New(fault.NotFound, &pluginError{})
	}
	if !strings.HasPrefix(p, api.PathPrefix+"/") {
		return nil
	}
	if !slices.Contains(fieldMethods, r.Method) {
		return fault.New(fault.MethodNotAllowed, errMethod)
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return fault.Newf(fault.InvalidRequest, "query: %w", err)
	}
	u := *r.URL
	u.RawPath = ""
	if name, rest, _ := strings.Cut(strings.TrimPrefix(p, api.PathPrefix+"/"), "/"); name != "" && rest == "" {
		u.Path = strings.TrimSuffix(p, "/") // an empty resource path, written with its slash
		if r.Method == http.MethodDelete && (u.Path == api.PathResourcePolicy || u.Path == api.PathReferenceValue) {
			// Without a name nothing is deleted, nor is anyone redirected.
			return fault.New(fault.NotFound, &pluginError{name})
		}
	}
	r.URL = &u
	return nil
}

// unknownPlugin answers for all that no route takes (kbs-protocol 2.1 and 2.3):
// a name that nothing has, or the one plugin that there is asked for something
// that it has not.
func unknownPlugin(_ http.ResponseWriter, r *http.Request) error {
	name, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, api.PathPrefix), "/"), "/")
	_, err := resource.ParsePath(rest)
	switch {
	case name != "resource" || err == nil && r.Method == http.MethodGet: // administrators cannot read
		return fault.New(fault.NotFound, &pluginError{clip(name, 64)})
	case err == nil:
		return fault.New(fault.MethodNotAllowed, errMethod)
	default:
		return fault.New(fault.InvalidRequest, err)
	}
}

// pluginError names what is not there, as the caller wrote it.
type pluginError struct{ name string }

// Error is the text of the field's protocol (kbs-protocol 2.4).
func (e *pluginError) Error() string { return "Plugin " + e.name + " not found" }
