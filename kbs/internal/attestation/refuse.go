package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// refusal is a handshake that ended without a token.
type refusal struct {
	stage, platform, subject string
	fault                    *fault.Fault
}

// record is what an administrator finds under the ticket, and the audit entry.
func (r refusal) record() (api.Explanation, api.AuditEntry) {
	return api.Explanation{
		Code: string(r.fault.Code), Stage: r.stage, Platform: r.platform, Subject: r.subject,
		Cause: causeText(r.fault), Findings: findings(r.fault), Rule: rule(r.fault),
	}, api.AuditEntry{Kind: api.AuditKind(r.stage), Decision: decision(r.fault.Code)}
}

// refuse records a refusal and returns it under its ticket. If it cannot be
// recorded the caller is told so, and nothing else.
func (s *Service) refuse(ctx context.Context, r refusal) error {
	x, entry := r.record()
	// The caller may have gone; what it tried is recorded all the same.
	t, err := s.cfg.Tickets.Record(context.WithoutCancel(ctx), x, entry)
	if err != nil {
		return fault.Newf(fault.Internal, "record refusal %s: %w", r.fault.Code, err)
	}
	return r.fault.With(t)
}

// refuseAnswer is refuse for an answer to a challenge, which it spends in the
// same transaction.
func (s *Service) refuseAnswer(ctx context.Context, c challenge.Challenge, f *fault.Fault) error {
	if err := limit.Fail(ctx); err != nil {
		return err // nothing is recorded, and so the challenge is not spent
	}
	x, entry := refusal{stage: stageAttest, platform: c.Platform, subject: subject(c), fault: f}.record()
	var t fault.Ticket
	err := s.cfg.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) (err error) {
		if err := s.sessions.put(tx, c, ""); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
		t, err = s.cfg.Tickets.RecordTx(tx, x, entry)
		return err
	})
	if err != nil {
		return fault.Newf(fault.Internal, "record refusal %s: %w", f.Code, err)
	}
	return f.With(t)
}

// decision tells a refusal from a failure of ours.
func decision(c fault.Code) string {
	switch c {
	case fault.Internal, fault.Unavailable, fault.PolicyError:
		return "error"
	default:
		return "deny"
	}
}

func causeText(f *fault.Fault) string {
	if f.Cause() == nil {
		return ""
	}
	return f.Cause().Error()
}

// nonceError says that evidence answers another challenge: it was replayed.
type nonceError struct{ seen, wanted string }

func (*nonceError) Error() string { return "the runtime data has another nonce than the session" }

// rule names the checks that refused, for the administrator.
func rule(f *fault.Fault) string {
	if _, ok := errors.AsType[*nonceError](f); ok {
		return "challenge.nonce"
	}
	v, ok := errors.AsType[*measure.VerificationError](f)
	if !ok {
		return ""
	}
	names := make([]string, len(v.Failed))
	for i, c := range v.Failed {
		names[i] = "verify." + string(c.Name)
	}
	return strings.Join(names, " ")
}

// findings lists the claims of a verification that failed.
func findings(f *fault.Fault) []api.Finding {
	if n, ok := errors.AsType[*nonceError](f); ok {
		return []api.Finding{{Claim: "nonce", Seen: n.seen, Wanted: []string{n.wanted}}}
	}
	v, ok := errors.AsType[*measure.VerificationError](f)
	if !ok {
		return nil
	}
	var out []api.Finding
	for _, c := range v.Failed {
		if len(c.Findings) == 0 {
			out = append(out, api.Finding{Claim: string(c.Name), Seen: c.Reason})
		}
		for _, x := range c.Findings {
			out = append(out, api.Finding{Claim: x.Field, Seen: x.Seen, Wanted: x.Wanted})
		}
	}
	return out
}

// Explain says why the submods of a token are not affirming, by asking the
// policy again about the evidence that the token carries.
func (s *Service) Explain(ctx context.Context, c token.Claims) ([]policy.Explanation, error) {
	var out []policy.Explanation
	for _, name := range slices.Sorted(maps.Keys(c.Submods)) {
		sub := c.Submods[name]
		if sub.Status == token.Affirming {
			continue
		}
		id := sub.PolicyID + "_" + strings.TrimRight(name, "0123456789")
		if _, err := policy.ParseName(string(policy.Attestation), id); err != nil {
			return out, err // the token of another issuer
		}
		x, err := s.cfg.Policies.ExplainAppraisal(ctx, id, sub.Evidence)
		if err != nil {
			return out, err
		}
		out = append(out, x)
	}
	return out, nil
}

// Platform returns the platform that a token speaks of: the one member of its
// evidence that is named like one.
func Platform(c token.Claims) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(c.Submods[token.CPU].Evidence, &members) != nil {
		return ""
	}
	for name := range members {
		if canonicalTEE(name) == name {
			return name
		}
	}
	return ""
}
