package client

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jwe"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

const (
	maxNonce  = 64 << 10 // bytes; one platform gets a JSON document as its nonce
	maxCookie = 4 << 10  // bytes (RFC 6265, section 6.1)
)

// authDelays are the pauses before the attempts to open a handshake again. The
// broker may still be starting when a guest boots. Nothing else is retried:
// what follows is bound to one challenge.
var authDelays = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}

// handshake runs Request, Challenge, Attestation, Response once, with a new
// key pair (kbs-protocol 3).
func (c *Client) handshake(ctx context.Context) (*session, error) {
	c.handshakes.Add(1)
	key, err := jwe.Generate(c.keyAlgorithm)
	if err != nil {
		return nil, fault.New(fault.Internal, err)
	}
	ch, err := c.auth(ctx)
	if err != nil {
		return nil, err
	}
	body, err := c.attestation(ctx, ch, key.JWK())
	if err != nil {
		return nil, err
	}
	token, err := c.attest(ctx, ch, body)
	if err != nil {
		return nil, err
	}
	s, err := newSession(token, key, c.now())
	if err != nil {
		return nil, badAnswer(err)
	}
	c.log.InfoContext(ctx, "the broker attested this guest",
		slog.String("platform", string(c.attester.Platform())), slog.Time("expires", s.expires))
	return s, nil
}

// A challenge is what /auth gave, as far as it was understood.
type challenge struct {
	nonce  string
	hash   crypto.Hash
	cookie *http.Cookie
}

// auth opens the session, trying again while the broker cannot be reached or
// says that it is broken.
func (c *Client) auth(ctx context.Context) (challenge, error) {
	extra, err := api.ExtraParams{SupportedHashAlgorithms: rcar.SupportedHashes(), AttestationPolicySelector: c.selector}.Raw()
	if err != nil {
		return challenge{}, fault.New(fault.Internal, err)
	}
	body, err := json.Marshal(api.Request{
		Version:     api.ProtocolVersion,
		TEE:         string(c.attester.Platform()),
		ExtraParams: extra,
	})
	if err != nil {
		return challenge{}, fault.New(fault.Internal, err)
	}
	for attempt := 0; ; attempt++ {
		a, err := c.send(ctx, request{method: http.MethodPost, path: api.PathAuth, body: body})
		if err == nil && a.status == http.StatusOK {
			return parseChallenge(a)
		}
		again := err == nil && a.status >= 500 || err != nil && transient(ctx, err)
		if err == nil {
			err = refusal(a)
		}
		if !again || attempt == len(authDelays) {
			return challenge{}, err
		}
		c.log.WarnContext(ctx, "the broker cannot open a handshake",
			slog.Int("attempt", attempt+1), slog.String("code", string(fault.CodeOf(err))))
		if werr := c.wait(ctx, authDelays[attempt]); werr != nil {
			return challenge{}, fault.New(fault.Unavailable, werr)
		}
	}
}

func parseChallenge(a answer) (challenge, error) {
	var wire api.Challenge
	if err := json.Unmarshal(a.body, &wire); err != nil {
		return challenge{}, badAnswer(fmt.Errorf("challenge: %w", err))
	}
	if wire.Nonce == "" || len(wire.Nonce) > maxNonce {
		return challenge{}, badAnswer(errors.New("challenge: the nonce is empty or too long"))
	}
	extra, err := api.ParseExtraParams(wire.ExtraParams)
	if err != nil {
		return challenge{}, badAnswer(fmt.Errorf("challenge: %w", err))
	}
	ch := challenge{nonce: wire.Nonce, hash: rcar.DefaultHash}
	if extra.SelectedHashAlgorithm != "" {
		if ch.hash, err = rcar.ParseHash(extra.SelectedHashAlgorithm); err != nil {
			return challenge{}, badAnswer(fmt.Errorf("challenge: %w", err))
		}
	}
	for _, k := range (&http.Response{Header: a.header}).Cookies() {
		if k.Name == api.SessionCookie && k.Value != "" && len(k.Value) <= maxCookie {
			ch.cookie = &http.Cookie{Name: k.Name, Value: k.Value}
			return ch, nil
		}
	}
	return challenge{}, badAnswer(errors.New("challenge: no session cookie"))
}

// attestation obtains evidence over the challenge and the key and writes the
// body of /attest (kbs-protocol 3.3, 3.5).
func (c *Client) attestation(ctx context.Context, ch challenge, jwk api.JWK) ([]byte, error) {
	rd := api.RuntimeData{Nonce: ch.nonce, TEEPubKey: jwk}
	devices, err := c.deviceEvidence(ctx, ch.hash, rd)
	if err != nil {
		return nil, err
	}
	digest, err := rcar.PrimaryDigest(ch.hash, rd, devices)
	if err != nil {
		return nil, badAnswer(err)
	}
	primary, err := evidenceOver(ctx, c.attester, digest)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(api.Attestation{
		InitData:    c.initData,
		RuntimeData: rd,
		TEEEvidence: api.TEEEvidence{PrimaryEvidence: primary, AdditionalEvidence: devices},
	})
	if err != nil {
		return nil, fault.New(fault.Internal, fmt.Errorf("write attestation: %w", err))
	}
	return body, nil
}

// deviceEvidence returns the text whose bytes the evidence of the CPU binds; ""
// without devices.
func (c *Client) deviceEvidence(ctx context.Context, hash crypto.Hash, rd api.RuntimeData) (string, error) {
	if len(c.devices) == 0 {
		return "", nil
	}
	digest, err := rcar.DeviceDigest(hash, rd)
	if err != nil {
		return "", badAnswer(err)
	}
	all := map[measure.Platform]json.RawMessage{}
	for _, d := range c.devices {
		if all[d.Platform()], err = evidenceOver(ctx, d, digest); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return "", fault.New(fault.Internal, fmt.Errorf("write device evidence: %w", err))
	}
	return string(text), nil
}

func evidenceOver(ctx context.Context, a measure.Attester, digest []byte) (json.RawMessage, error) {
	ev, err := measure.EvidenceOver(ctx, a, digest)
	if err != nil {
		return nil, fault.New(fault.Internal, fmt.Errorf("obtain evidence: %w", err))
	}
	if ev.Platform != a.Platform() {
		return nil, fault.Newf(fault.Internal, "attester of %s gave evidence of %s", a.Platform(), ev.Platform)
	}
	return ev.Data, nil
}

// attest presents the evidence and returns the token.
func (c *Client) attest(ctx context.Context, ch challenge, body []byte) (string, error) {
	a, err := c.send(ctx, request{method: http.MethodPost, path: api.PathAttest, body: body, cookie: ch.cookie})
	if err != nil {
		return "", err
	}
	if a.status != http.StatusOK {
		return "", refusal(a)
	}
	var got api.AttestResponse
	if err := json.Unmarshal(a.body, &got); err != nil {
		return "", badAnswer(fmt.Errorf("attest: %w", err))
	}
	return got.Token, nil
}
