package server

import (
	"bytes"
	"context"
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
	var answer []byte
	e := api.AuditEntry{Kind: api.AuditPluginCall, Object: what.object(), Details: map[string]string{"method": r.Method}}
	err := s.changeElsewhere(r.Context(), who, e, func() (err error) {
		if answer, err = p.Handle(r.Context(), call); err != nil {
			return pluginTrouble(err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, plainType, answer)
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
	err = s.recordRelease(ctx, claims, 0, api.AuditEntry{
		Object: what.object(), Details: map[string]string{"policy": decision.Policy, "method": r.Method},
	})
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, kind, answer)
	return nil
}

// pluginAnswer asks the plugin, and encrypts to the guest what is for it
// alone.
func (s *Server) pluginAnswer(ctx context.Context, p plugin.Plugin, call plugin.Call, claims token.Claims) (answer []byte, kind string, err error) {
	encrypt, err := p.Encrypts(ctx, call)
	if err != nil {
		return nil, "", err
	}
	if answer, err = p.Handle(ctx, call); err != nil || !encrypt {
		return answer, plainType, err
	}
	defer clear(answer)
	key, err := claims.TEEKey()
	if err != nil {
		return nil, "", fault.New(fault.TokenInvalid, err)
	}
	sealed, err := s.seal(ctx, key, answer)
	return sealed, typeJSON, err
}
