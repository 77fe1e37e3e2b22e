package attestation

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Evaluation is the evidence of one guest that shook hands with another
// broker: that broker chose the nonce, and asks what the evidence is worth.
type Evaluation struct {
	Evidence []Evidence // at least one; that of the CPU comes first
	Policy   string     // id of the attestation policy, without class; "" is the default
}

// Evidence is that of one attester, and what it must be bound to. Of
// ReportData and RuntimeData one is given; of the two for init-data at most
// one.
type Evidence struct {
	Platform string // a name of kbs-protocol 3.8
	Data     json.RawMessage

	ReportData  []byte          // compared as it is
	RuntimeData json.RawMessage // its canonical form is hashed
	Hash        string          // of RuntimeData; "" is sha384

	InitDataDigest []byte
	InitData       string // the document (TOML)
}

// Evaluate judges evidence for another broker and returns a token that this
// one does not accept itself: who may have evidence judged here chooses the
// policy and vouches for the nonce, and no guest of ours does either.
func (s *Service) Evaluate(ctx context.Context, e Evaluation) (string, error) {
	id := token.EvaluatedPrefix + hex.EncodeToString(secret.Random(16).Reveal())
	platform := ""
	if len(e.Evidence) > 0 {
		platform = canonicalTEE(e.Evidence[0].Platform)
	}
	c := challenge.Challenge{Platform: platform, Ceremony: id}
	j, err := inTurn(ctx, s.cfg.Gate, func() (judgement, error) { return s.evaluate(ctx, e) })
	if errors.Is(err, errTurnedAway) {
		return "", err
	}
	if err != nil {
		return "", s.refuse(ctx, refusal{stage: stageEvaluate, platform: platform, subject: subject(c), fault: faultOf(err)})
	}
	text, _, err := s.cfg.Issuer.Issue(ctx, id, j.submods())
	if err != nil {
		return "", fault.Newf(fault.Internal, "issue token: %w", err)
	}
	entry := j.entry(c)
	entry.Kind = api.AuditEvaluate
	if _, err := s.cfg.Audit.Append(ctx, entry); err != nil {
		return "", fault.Newf(fault.Internal, "append audit entry: %w", err)
	}
	return text, nil
}

// Challenge returns what a platform needs to make evidence, beside a nonce. No
// platform that can be verified here needs anything.
func (s *Service) Challenge(_ context.Context, platform, _ string) (string, error) {
	if name := canonicalTEE(platform); name == "" || !s.enabled(name) {
		return "", fault.Newf(fault.PlatformDisabled, "platform %q is not enabled", clip(platform, 32))
	}
	return "", nil
}

func (s *Service) enabled(platform string) bool {
	_, ok := s.cfg.Registry.Verifier(measure.Platform(platform))
	return ok
}

func (s *Service) evaluate(ctx context.Context, e Evaluation) (judgement, error) {
	if len(e.Evidence) == 0 {
		return nil, fault.Newf(fault.InvalidRequest, "there is no evidence")
	}
	id := e.Policy
	if id == "" {
		id = policy.DefaultID
	}
	if _, err := policy.ParseName(string(policy.Attestation), id); err != nil {
		return nil, fault.New(fault.InvalidRequest, err)
	}
	pieces := make([]piece, len(e.Evidence))
	for i, one := range e.Evidence {
		var err error
		if pieces[i], err = s.pieceOf(one); err != nil {
			return nil, err
		}
	}
	return s.weigh(ctx, id, pieces)
}

// pieceOf says what one attester's evidence must be bound to (kbs-protocol
// 11.1). Evidence that is bound to nothing could be anybody's.
func (s *Service) pieceOf(e Evidence) (piece, error) {
	platform := canonicalTEE(e.Platform)
	if platform == "" {
		return piece{}, fault.Newf(fault.PlatformDisabled, "%q is not the name of a platform", clip(e.Platform, 32))
	}
	want, runtime, err := s.boundTo(e)
	if err != nil {
		return piece{}, fault.New(fault.InvalidRequest, err)
	}
	var doc *initdata.Document
	switch {
	case e.InitDataDigest != nil:
		want.InitData = measure.BoundTo(e.InitDataDigest)
	case e.InitData != "":
		if doc, err = initdata.Parse([]byte(e.InitData)); err != nil {
			return piece{}, fault.New(fault.InvalidRequest, err)
		}
		want.InitData = measure.BoundTo(doc.Digest())
	default:
		want.InitData = measure.NotPresented()
	}
	p, err := s.piece(platform, e.Data, want)
	p.runtime, p.doc = runtime, doc
	return p, err
}

func (s *Service) boundTo(e Evidence) (want measure.Expected, runtime any, err error) {
	switch {
	case len(e.ReportData) > 0:
		want.ReportData = measure.BoundTo(e.ReportData)
		return want, nil, nil
	case len(e.RuntimeData) == 0:
		return want, nil, errors.New("the request does not say what the evidence is bound to")
	}
	hash := rcar.DefaultHash
	if e.Hash != "" {
		if hash, err = rcar.ParseHash(e.Hash); err != nil {
			return want, nil, err
		}
	}
	text, err := jcs.Transform(e.RuntimeData)
	if err != nil {
		return want, nil, fmt.Errorf("runtime data: %w", err)
	}
	sum := hash.New()
	sum.Write(text)
	want.ReportData = measure.BoundTo(sum.Sum(nil))
	if text[0] != '{' {
		return want, json.RawMessage(text), nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return want, nil, fmt.Errorf("runtime data: %w", err)
	}
	if !s.cfg.VerboseTokens {
		delete(members, memberDevices)
	}
	return want, members, nil
}
