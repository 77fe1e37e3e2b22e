// Package attestation runs the RCAR handshake: a challenge, the evidence that
// answers it, a verdict, and a token (kbs-protocol 3).
//
// Opening a handshake writes nothing: see package challenge. A challenge is
// good for one answer. The only write of a handshake puts the record of its
// outcome, where there must be none, together with the audit entry; so of two
// answers to one challenge, on however many replicas, at most one gets a token,
// and every outcome is in the audit log before the caller learns of it.
package attestation

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/observe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/ticket"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Stages, as Explanation.Stage tells them.
const (
	stageAuth     = "auth"
	stageEvaluate = "evaluate"
	stageAttest   = "attest"
)

const nonceSize = 32 // bytes (kbs-protocol 3.2)

// Appraiser is the part of the policy engine that judges evidence.
type Appraiser interface {
	Appraise(ctx context.Context, id string, input json.RawMessage) (policy.Appraisal, error)
	ExplainAppraisal(ctx context.Context, id string, input json.RawMessage) (policy.Explanation, error)
}

// Config joins what the service needs. All members are
// required, but for Selectors.
type Config struct {
	Store      store.Store
	Audit      audit.Recorder
	Tickets    ticket.Book // over the same store
	Challenges *challenge.Sealer
	Registry   *measure.Registry
	// Versions are those of the protocol that are accepted, as they are named
	// to a guest that speaks another.
	Versions []rcar.Version
	// Selectors map what a guest may ask for to the id of an attestation
	// policy, without class (kbs-protocol 3.9). May be empty.
	Selectors map[string]string
	Policies  Appraiser
	Issuer    *token.Issuer
	// Remote judges in place of the registry and the policies; nil: it does not.
	// Tokens verifies what it answers.
	Remote Remote
	Tokens Verifier
	// VerboseTokens repeat the evidence of devices in the runtime data.
	VerboseTokens bool
	Lifetime      time.Duration // of a session, from the challenge on; at most challenge.Period
	Now           func() time.Time
	Logger        *slog.Logger
	Gate          Gate // nil lets everything through
	// Revoked says whose evidence earns no token any more; nil: everybody's may.
	Revoked Revoked
}

// Revoked knows which guests an administrator cut off.
type Revoked interface {
	// Evidence returns a fault with code guest_revoked for evidence, as policies
	// and tokens have it, that shows a revoked claim.
	Evidence(ctx context.Context, evidence json.RawMessage) error
}

// Gate lets the verification of evidence through when there is a CPU for it.
type Gate interface {
	// Enter waits for a turn; the caller calls leave at the end of it.
	Enter(ctx context.Context) (leave func(), err error)
}

// Service is the handshake. It is safe for concurrent use.
type Service struct {
	cfg      Config
	sessions sessions
}

// New returns the service.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, sessions: sessions{st: cfg.Store}}
}

// Opened is an opened handshake.
type Opened struct {
	Cookie    string // whoever holds it may answer
	Expires   time.Time
	Challenge api.Challenge
}

// Open answers a Request with a challenge (kbs-protocol 3.1 and 3.2).
func (s *Service) Open(ctx context.Context, body []byte) (Opened, error) {
	var req api.Request
	if err := strictjson.Decode(body, &req); err != nil {
		return Opened{}, fault.New(fault.InvalidRequest, err)
	}
	c, extra, err := s.negotiate(req)
	observe.Platform(ctx, c.Platform)
	if err != nil {
		f := faultOf(err)
		if f.Code == fault.InvalidRequest {
			return Opened{}, f
		}
		return Opened{}, s.refuse(ctx, refusal{stage: stageAuth, platform: c.Platform, fault: f})
	}
	c.Nonce = base64.StdEncoding.EncodeToString(secret.Random(nonceSize).Reveal())
	c.Ceremony = hex.EncodeToString(secret.Random(16).Reveal())
	c.Expires = s.cfg.Now().Add(s.cfg.Lifetime)
	cookie, c, err := s.cfg.Challenges.Seal(ctx, c)
	if err != nil {
		return Opened{}, fault.Newf(fault.Internal, "seal challenge: %w", err)
	}
	return Opened{Cookie: cookie, Expires: c.Expires, Challenge: api.Challenge{Nonce: c.Nonce, ExtraParams: extra}}, nil
}

// Attested is the outcome of a successful handshake.
type Attested struct {
	Token   string
	Expires time.Time // of the session
}

// Attest judges the answer to the challenge in a cookie. An outcome that was
// recorded spends the challenge, whatever it is. Who already has a token gets
// it again, and what was sent along is only parsed (kbs-protocol 3.3).
func (s *Service) Attest(ctx context.Context, cookie string, body []byte) (Attested, error) {
	c, past, err := s.find(ctx, cookie)
	if errors.Is(err, errSession) {
		return Attested{}, s.refuse(ctx, refusal{stage: stageAttest, fault: fault.New(fault.SessionInvalid, err)})
	}
	if err != nil {
		return Attested{}, fault.Newf(fault.Internal, "find session: %w", err)
	}
	observe.Platform(ctx, c.Platform)
	_, done := observe.Step(ctx, observe.StepDecode)
	att, err := parseAnswer(c, body)
	done(err)
	if err != nil {
		return Attested{}, s.refuseAnswer(ctx, c, fault.New(fault.InvalidRequest, err))
	}
	if past.Token != "" {
		return Attested{Token: past.Token, Expires: c.Expires}, nil
	}
	text, entry, err := s.decide(ctx, c, att)
	if errors.Is(err, errTurnedAway) {
		return Attested{}, err
	}
	if err != nil {
		return Attested{}, s.refuseAnswer(ctx, c, faultOf(err))
	}
	return s.accept(ctx, c, text, entry)
}

// errTurnedAway marks evidence that nobody looked at, for too much load. Its
// challenge is not spent: the guest may come again.
var errTurnedAway = errors.New("turned away")

// inTurn works when the gate lets it. Only the work is behind the gate:
// whoever waits for the store holds up nobody.
func inTurn[T any](ctx context.Context, gate Gate, work func() (T, error)) (T, error) {
	if gate == nil {
		return work()
	}
	leave, err := gate.Enter(ctx)
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", errTurnedAway, err)
	}
	defer leave()
	return work()
}

// decide judges an answer, or has it judged, and returns the token with the
// entry that tells of it.
func (s *Service) decide(ctx context.Context, c challenge.Challenge, att api.Attestation) (text string, entry api.AuditEntry, err error) {
	if s.cfg.Remote != nil {
		return s.judgeElsewhere(ctx, c, att)
	}
	j, err := inTurn(ctx, s.cfg.Gate, func() (judgement, error) { return s.judge(ctx, c, att) })
	if err != nil {
		return "", entry, err
	}
	stepped, done := observe.Step(ctx, observe.StepIssue)
	text, _, err = s.cfg.Issuer.Issue(stepped, c.Ceremony, j.submods())
	done(err)
	if err != nil {
		return "", entry, fault.Newf(fault.Internal, "issue token: %w", err)
	}
	return text, j.entry(c), nil
}

// accept hands out the token. Entry and record become durable together, and
// only the first answer to a challenge gets that far.
func (s *Service) accept(ctx context.Context, c challenge.Challenge, text string, entry api.AuditEntry) (Attested, error) {
	stepped, done := observe.Step(ctx, observe.StepRecord)
	err := s.cfg.Store.Update(stepped, func(tx store.Tx) error {
		if err := s.sessions.put(tx, c, text); err != nil {
			return err
		}
		if _, err := s.cfg.Audit.AppendTx(tx, entry); err != nil {
			return fmt.Errorf("append audit entry: %w", err)
		}
		return nil
	})
	done(err)
	if errors.Is(err, store.ErrConflict) {
		return Attested{}, s.refuseAnswer(ctx, c, fault.Newf(fault.SessionInvalid, "%w: another answer came first", errSession))
	}
	if err != nil {
		return Attested{}, fault.Newf(fault.Internal, "record attestation: %w", err)
	}
	return Attested{Token: text, Expires: c.Expires}, nil
}

// find returns the challenge of a cookie, and what became of it: a session
// without a token if nothing did. A challenge that was spent is errSession.
func (s *Service) find(ctx context.Context, cookie string) (challenge.Challenge, session, error) {
	c, err := s.cfg.Challenges.Open(ctx, cookie)
	if errors.Is(err, challenge.ErrCookie) {
		return c, session{}, fmt.Errorf("%w: %w", errSession, err)
	}
	if err != nil {
		return c, session{}, err
	}
	past, answered, err := s.sessions.answered(ctx, c)
	if err == nil && answered && past.Token == "" {
		err = fmt.Errorf("%w: its challenge was answered before", errSession)
	}
	return c, past, err
}

// faultOf gives an error without a code one: a context that ended is an
// answer that was not finished, anything else is our own failure.
func faultOf(err error) *fault.Fault {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, err)
	}
	return fault.New(fault.Internal, err)
}

// Token returns the attestation token of a session, or false if the cookie
// names no attested session that is still alive.
func (s *Service) Token(ctx context.Context, cookie string) (string, bool, error) {
	_, past, err := s.find(ctx, cookie)
	if errors.Is(err, errSession) {
		return "", false, nil
	}
	return past.Token, err == nil && past.Token != "", err
}

func sameNonce(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
