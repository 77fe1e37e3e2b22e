package server

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// changePlugin is what an administrator does with a plugin.
const changePlugin = "plugin.call"

// plugin serves every name under /kbs/v0 that has no routes of its own
// (kbs-protocol 2.3). The plugin says who may ask; that the answer to that is
// heeded, that the policy decides about guests, and that all of it is in the
// log, does not depend on the plugin.
func (s *Server) plugin(w http.ResponseWriter, r *http.Request) error {
	segments := strings.Split(strings.TrimPrefix(r.URL.Path, api.PathPrefix+"/"), "/")
	p, ok := s.Plugins[segments[0]]
	if !ok {
		return unknownPlugin(w, r)
	}
	what := asked{segments[0], segments[1:]}
	raw, err := body(r)
	if err != nil {
		return err
	}
	call := plugin.Call{Method: r.Method, Path: what.path, Query: queryOf(r), Body: raw, Tenant: s.Tenant}
	forAdmins, err := p.NeedsAdmin(r.Context(), call)
	if err != nil {
		return pluginTrouble(err)
	}
	if !forAdmins {
		return s.pluginForGuest(w, r, p, what, call)
	}
	route := Route{Pattern: r.Pattern, Access: operator}
	if r.Method != http.MethodGet {
		route.Change = changePlugin
	}
	r.Body = nopCloser{bytes.NewReader(raw)} // for who keeps the request
	return s.as(route, func(w http.ResponseWriter, r *http.Request, who admin.Identity) error {
		return s.pluginForAdmin(w, r, p, what, call, who)
	})(w, r)
}

// pluginTrouble is a plugin that did not answer as it should: not the caller's
// fault, unless the plugin says so with a code.
func pluginTrouble(err error) error {
	f := known(err)
	if f.Code == fault.Internal {
		return fault.Newf(fault.Unavailable, "plugin: %w", err)
	}
	return f
}

func (s *Server) pluginForAdmin(w http.ResponseWriter, r *http.Request, p plugin.Plugin, what asked, call plugin.Call, who admin.Identity) error {
	var answer plugin.Answer
	e := api.AuditEntry{Kind: api.AuditPluginCall, Object: what.object(), Details: map[string]string{}}
	if t, ok := p.(plugin.Teller); ok {
		maps.Copy(e.Details, t.Tell(call))
	}
	e.Details["method"] = r.Method
	err := s.changeElsewhere(r.Context(), who, e, func() (err error) {
		if answer, err = p.Handle(r.Context(), call); err != nil {
			return pluginTrouble(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, plainType, answer.Body)
	return nil
}

// pluginForGuest keeps the order of a release: verified token, policy, answer
// in hand, audit entry, and only then the guest has it.
func (s *Server) pluginForGuest(w http.ResponseWriter, r *http.Request, p plugin.Plugin, what asked, call plugin.Call) error {
	ctx := r.Context()
	claims, err := s.attested(r)
	if err != nil {
		return s.refuseRelease(ctx, what.object(), claims, api.Explanation{}, err)
	}
	if err := s.within(ctx, w, s.Quotas.Releases, opRelease, "releases"); err != nil {
		return err
	}
	decision, err := s.authorize(ctx, r, what, claims)
	if err != nil {
		return err
	}
	call.Claims = claims.Raw
	answer, kind, err := s.pluginAnswer(ctx, p, call, claims)
	if err != nil {
		return s.refuseRelease(ctx, what.object(), claims, api.Explanation{Policy: decision.Policy}, pluginTrouble(err))
	}
	if err := s.stillGiven(ctx, claims, what.object()); err != nil {
		return s.refuseRelease(ctx, what.object(), claims, api.Explanation{Policy: decision.Policy}, err)
	}
	details := map[string]string{}
	for name, text := range answer.Details {
		details[name] = clip(text, maxObject)
	}
	details["policy"], details["method"] = decision.Policy, r.Method
	if err := s.recordRelease(ctx, claims, 0, api.AuditEntry{Object: what.object(), Details: details}); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, kind, answer.Body)
	return nil
}

// pluginAnswer asks the plugin, and encrypts to the guest what is for it
// alone.
func (s *Server) pluginAnswer(ctx context.Context, p plugin.Plugin, call plugin.Call, claims token.Claims) (answer plugin.Answer, kind string, err error) {
	encrypt, err := p.Encrypts(ctx, call)
	if err != nil {
		return plugin.Answer{}, "", err
	}
	var key api.JWK
	if encrypt { // before the plugin does anything for a guest that nothing can be sent to
		if key, err = claims.TEEKey(); err != nil {
			return plugin.Answer{}, "", fault.New(fault.TokenInvalid, err)
		}
	}
	if answer, err = p.Handle(ctx, call); err != nil || !encrypt {
		return answer, plainType, err
	}
	plain := answer.Body
	defer clear(plain)
	answer.Body, err = s.seal(ctx, key, plain)
	return answer, typeJSON, err
}
