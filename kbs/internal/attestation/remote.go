package attestation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// Remote is another Attestation Service that judges in our place.
type Remote interface {
	Evaluate(ctx context.Context, e Evaluation) (token string, err error)
}

// Verifier decides whether a token is good.
type Verifier interface {
	Verify(ctx context.Context, text string) (token.Claims, error)
}

// judgeElsewhere has an answer judged by the other service. What comes back
// must be a token that is trusted, and one for this very guest: a service that
// is wrong, or somebody who answers in its place, must not hand one guest the
// token of another.
func (s *Service) judgeElsewhere(ctx context.Context, c challenge.Challenge, att api.Attestation) (string, api.AuditEntry, error) {
	var none api.AuditEntry
	if !sameNonce(att.RuntimeData.Nonce, c.Nonce) {
		return "", none, fault.New(fault.NonceMismatch, &nonceError{seen: clip(att.RuntimeData.Nonce, 128), wanted: c.Nonce})
	}
	if err := checkKey(rcar.Version(c.Version), att.RuntimeData.TEEPubKey); err != nil {
		return "", none, fault.New(fault.InvalidRequest, err)
	}
	e, err := forwarded(c, att)
	if err != nil {
		return "", none, fault.New(fault.InvalidRequest, err)
	}
	text, err := s.cfg.Remote.Evaluate(ctx, e)
	if err != nil {
		return "", none, err
	}
	claims, err := s.cfg.Tokens.Verify(ctx, text)
	if errors.Is(err, token.ErrInvalid) {
		return "", none, fault.Newf(fault.Unavailable, "the token of the attestation service is not trusted: %w", err)
	}
	if err != nil {
		return "", none, err
	}
	if s.cfg.Revoked != nil {
		for _, sub := range claims.Submods {
			if err := s.cfg.Revoked.Evidence(ctx, sub.Evidence); err != nil && len(sub.Evidence) > 0 {
				return "", none, err
			}
		}
	}
	if err := speaksOf(claims, c, att); err != nil {
		return "", none, fault.Newf(fault.Unavailable, "the token of the attestation service: %w", err)
	}
	status := string(claims.Submods[token.CPU].Status)
	return text, api.AuditEntry{
		Kind: api.AuditAttest, Decision: "allow", Subject: subject(c), Object: "token/" + claims.ID,
		Details: map[string]string{"platform": c.Platform, "protocol": c.Version, "status": status, "issuer": clip(claims.Issuer, 128)},
	}, nil
}

// forwarded is an answer as the other service wants it: the runtime data of
// kbs-protocol 3.5, which it hashes as the guest did.
func forwarded(c challenge.Challenge, att api.Attestation) (Evaluation, error) {
	version := rcar.Version(c.Version)
	key, err := rcar.ReduceJWK(att.RuntimeData.TEEPubKey)
	if err != nil {
		return Evaluation{}, err
	}
	runtime := map[string]any{"nonce": att.RuntimeData.Nonce, "tee-pubkey": key}
	device, err := json.Marshal(runtime)
	if err != nil {
		return Evaluation{}, err
	}
	if version.Devices() {
		runtime["additional-evidence"] = att.TEEEvidence.AdditionalEvidence
	}
	primary, err := json.Marshal(runtime)
	if err != nil {
		return Evaluation{}, err
	}
	cpu := Evidence{Platform: c.Platform, Data: att.TEEEvidence.PrimaryEvidence, RuntimeData: primary, Hash: c.Hash}
	if doc, err := readInitData(att.InitData); err != nil {
		return Evaluation{}, err
	} else if doc != nil {
		cpu.InitData = att.InitData.Body
	}
	out := Evaluation{Evidence: []Evidence{cpu}, Policy: c.Policy}
	devices, err := parseDevices(att.TEEEvidence.AdditionalEvidence, c.Platform)
	if err != nil {
		return Evaluation{}, err
	}
	for _, d := range devices {
		out.Evidence = append(out.Evidence, Evidence{Platform: d.platform, Data: d.evidence, RuntimeData: device, Hash: c.Hash})
	}
	return out, nil
}

// speaksOf compares the guest's key and the nonce of the ceremony with those
// that a token shows.
func speaksOf(claims token.Claims, c challenge.Challenge, att api.Attestation) error {
	seen, err := claims.TEEKey()
	if err != nil {
		return err
	}
	want, err := rcar.ReduceJWK(att.RuntimeData.TEEPubKey)
	if err != nil {
		return err
	}
	if seen, err = rcar.ReduceJWK(seen); err != nil || seen != want {
		return errors.New("it is for another guest's key")
	}
	var evidence struct {
		RuntimeData struct {
			Nonce string `json:"nonce"`
		} `json:"runtime_data_claims"`
	}
	if err := json.Unmarshal(claims.Submods[token.CPU].Evidence, &evidence); err != nil {
		return fmt.Errorf("its evidence: %w", err)
	}
	if !sameNonce(evidence.RuntimeData.Nonce, c.Nonce) {
		return errors.New("it answers another nonce")
	}
	return nil
}
