package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// getResource releases a resource to an attested guest. The order is the
// first invariant of the architecture: verified token, policy, value, audit
// entry, and only then an answer. A guest that the policy denies does not
// learn whether the resource exists.
func (s *Server) getResource(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	claims, err := s.attested(r)
	if err != nil {
		return s.refuseRelease(ctx, object(path), claims, api.Explanation{}, err)
	}
	if err := s.within(ctx, w, s.Quotas.Releases, opRelease, "releases"); err != nil {
		return err
	}
	wanted, err := wish(r)
	if err != nil {
		return err
	}
	decision, err := s.authorize(ctx, r, asked{"resource", []string{path.Repo, path.Type, path.Tag}}, claims)
	if err != nil {
		return err
	}
	x := api.Explanation{Policy: decision.Policy}
	sealed, info, err := s.sealed(ctx, path, claims, wanted, &x)
	if err != nil {
		return s.refuseRelease(ctx, object(path), claims, x, err)
	}
	if err := s.stillGiven(ctx, claims, object(path)); err != nil {
		return s.refuseRelease(ctx, object(path), claims, x, err)
	}
	err = s.recordRelease(ctx, claims, info.Value, api.AuditEntry{
		Object: object(path), Details: releaseDetails(decision.Policy, info, wanted.Image, s.Now()),
	})
	if err != nil {
		return err
	}
	if s.Released != nil {
		s.Released(path)
	}
	s.answer(w, http.StatusOK, "application/json", sealed)
	return nil
}

func resourcePath(r *http.Request) (resource.Path, error) {
	return resource.ParsePath(r.PathValue("repo") + "/" + r.PathValue("type") + "/" + r.PathValue("tag"))
}

func object(p resource.Path) string { return "resource/" + p.String() }

func subject(c token.Claims) string { return attestation.Subject(platform(c), c.ID) }

// reading is what this package makes of a token's claims. It is made once for
// as long as the token's verdict is remembered.
type reading struct {
	input    policy.Input
	err      error // of input
	platform string
	guest    lease.Guest
}

func read(c token.Claims) reading {
	made, _ := c.Parsed(func(raw json.RawMessage) (any, error) {
		in, err := policy.ParseInput(raw)
		return reading{in, err, attestation.Platform(c), lease.GuestOf(c)}, nil
	})
	out, _ := made.(reading)
	return out
}

func platform(c token.Claims) string { return read(c).platform }

// attested returns the claims of the session's token, or else of the bearer
// token (kbs-protocol 2.3). Both are verified. With an error there are claims
// only of a genuine token that was revoked.
func (s *Server) attested(r *http.Request) (token.Claims, error) {
	if c, err := r.Cookie(api.SessionCookie); err == nil {
		text, ok, err := s.Handshake.Token(r.Context(), c.Value)
		if err != nil {
			return token.Claims{}, err
		}
		if ok {
			return s.verified(r.Context(), text)
		}
	}
	text, ok := bearer(r)
	if !ok {
		return token.Claims{}, fault.New(fault.TokenInvalid, errNoToken)
	}
	return s.verified(r.Context(), text)
}

func (s *Server) verified(ctx context.Context, text string) (token.Claims, error) {
	stepped, done := observe.Step(ctx, observe.StepToken)
	claims, err := s.Tokens.Verify(stepped, text)
	if errors.Is(err, token.ErrInvalid) {
		claims, err = token.Claims{}, fault.New(fault.TokenInvalid, err)
	}
	if err == nil {
		err = s.notRevoked(stepped, claims)
	}
	done(err)
	return claims, err
}

// notRevoked asks whether an administrator cut the guest off since it attested.
func (s *Server) notRevoked(ctx context.Context, c token.Claims) error {
	if err := s.Guests.Token(ctx, c.ID); err != nil {
		return err
	}
	for _, sub := range c.Submods {
		if len(sub.Evidence) == 0 {
			continue // of a foreign token, which may show none
		}
		if err := s.Guests.Evidence(ctx, sub.Evidence); err != nil {
			return err
		}
	}
	return nil
}

// stillGiven asks once more, with the answer in hand, whether the guest was cut
// off meanwhile: a back end may have taken seconds, and who was told that a
// guest is revoked must not find a later release in the log.
func (s *Server) stillGiven(ctx context.Context, c token.Claims, object string) error {
	if err := s.notRevoked(ctx, c); err != nil {
		return err
	}
	return s.Guests.Lease(ctx, lease.ID(read(c).guest, object))
}

func bearer(r *http.Request) (string, bool) {
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return text, ok && strings.EqualFold(scheme, "Bearer") && text != ""
}

// asked is what a guest asks for: something of a plugin's.
type asked struct {
	plugin string
	path   []string // behind the plugin's name
}

// object names it in the log, as far as the log has room.
func (a asked) object() string { return clip(a.plugin+"/"+strings.Join(a.path, "/"), maxObject) }

// queryOf reads the query of a request; of two of one name the last one counts
// (kbs-protocol 2.1).
func queryOf(r *http.Request) map[string]string {
	query := map[string]string{}
	for k, vs := range r.URL.Query() {
		query[k] = vs[len(vs)-1]
	}
	return query
}

// authorize asks the resource policy, and explains a denial. A guest whose lease
// on the object was revoked is denied without.
func (s *Server) authorize(ctx context.Context, r *http.Request, what asked, c token.Claims) (policy.Decision, error) {
	if err := s.Guests.Lease(ctx, lease.ID(read(c).guest, what.object())); err != nil {
		return policy.Decision{}, s.refuseRelease(ctx, what.object(), c, api.Explanation{}, err)
	}
	q := policy.Release{Plugin: what.plugin, Path: what.path, Query: queryOf(r), Claims: c.Raw}
	if known := read(c); known.err == nil { // an error comes again, from the engine
		q.Input = known.input
	}
	d, err := s.decide(ctx, q)
	if err != nil {
		return d, s.refuseRelease(ctx, what.object(), c, api.Explanation{Policy: d.Policy}, fault.New(fault.PolicyError, err))
	}
	if !d.Allow {
		x, cause := s.explainInTurn(ctx, q, c, d.Policy)
		return d, s.refuseRelease(ctx, what.object(), c, x, fault.New(fault.PolicyDenied, cause))
	}
	return d, nil
}

// decide asks the policy engine, and tells of it as of one step.
func (s *Server) decide(ctx context.Context, q policy.Release) (policy.Decision, error) {
	ctx, done := observe.Step(ctx, observe.StepAuthorize)
	d, err := s.Engine.Authorize(ctx, q)
	switch {
	case err != nil:
		done(fault.New(fault.PolicyError, err))
	case !d.Allow:
		done(fault.New(fault.PolicyDenied, nil))
	default:
		done(nil)
	}
	return d, err
}

// explainInTurn explains when there is a CPU for it: an explanation evaluates
// the policy again under a tracer, and those of the attestation too, so a
// denial costs many times what a release does. A denial that gets no turn is
// one all the same, and says so to who opens its ticket.
func (s *Server) explainInTurn(ctx context.Context, q policy.Release, c token.Claims, denied string) (api.Explanation, error) {
	leave, err := s.Explaining.Enter(ctx)
	if err != nil {
		return api.Explanation{Policy: denied}, fmt.Errorf("%s denied, and there was no time to explain it: %s", denied, told(err))
	}
	defer leave()
	return s.explain(ctx, q, c)
}

// told is why there is no explanation, as mere text: a fault in the cause of a
// denial would take the denial's place.
func told(err error) string {
	f := known(err)
	return string(f.Code) + ": " + causeText(f)
}

// explain says why the policy denied. When the attestation was not affirming,
// that is the reason behind the reason: its policy, rule and claims come first.
func (s *Server) explain(ctx context.Context, q policy.Release, c token.Claims) (api.Explanation, error) {
	release, err := s.Engine.ExplainRelease(ctx, q)
	if err != nil {
		return api.Explanation{Policy: release.Policy}, fmt.Errorf("the resource policy denied, and cannot be explained: %s", told(err))
	}
	cause := fmt.Errorf("%s denied: rule %s, line %d", release.Policy, release.Rule, release.Line)
	x := api.Explanation{Policy: release.Policy, Rule: release.Rule, Line: release.Line}
	below, err := s.Handshake.Explain(ctx, c)
	if err != nil {
		cause = fmt.Errorf("%w; the attestation cannot be explained: %s", cause, told(err))
	}
	for _, a := range below {
		x.Policy, x.Rule, x.Line = a.Policy, a.Rule, a.Line
		x.Findings = append(x.Findings, a.Findings...)
		cause = fmt.Errorf("%w; %s does not affirm: rule %s, line %d", cause, a.Policy, a.Rule, a.Line)
	}
	x.Findings = append(x.Findings, release.Findings...)
	return x, cause
}

// refuseRelease records a refusal under a ticket.
func (s *Server) refuseRelease(ctx context.Context, object string, c token.Claims, x api.Explanation, err error) error {
	f := known(err)
	x.Code, x.Stage, x.Object, x.Cause = string(f.Code), string(opRelease), object, causeText(f)
	if c.ID != "" {
		x.Subject, x.Platform = subject(c), platform(c)
	}
	verdict := "deny"
	if f.Code.Status() >= http.StatusInternalServerError {
		verdict = "error"
	}
	t, rerr := s.Tickets.Record(context.WithoutCancel(ctx), x, api.AuditEntry{Kind: api.AuditRelease, Decision: verdict})
	if rerr != nil {
		return fault.Newf(fault.Internal, "record refusal %s: %w", f.Code, rerr)
	}
	return f.With(t)
}
