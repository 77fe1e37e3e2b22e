package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Config describes an issuer.
type Config struct {
	Keys      *Keys
	Issuer    string // iss
	Developer string
	Build     string
	Profile   string        // eat_profile; "" is [Profile]
	Writer    Writer        // nil is [Appraisal]
	Lifetime  time.Duration // at most that of the keys
	Now       func() time.Time
}

// Issuer signs tokens. It is safe for concurrent use.
type Issuer struct{ cfg Config }

// NewIssuer checks the configuration and returns an issuer.
func NewIssuer(cfg Config) (*Issuer, error) {
	switch {
	case cfg.Lifetime <= 0 || cfg.Issuer == "" || cfg.Now == nil || cfg.Keys == nil:
		return nil, errors.New("token: keys, issuer, lifetime and clock must be set")
	case cfg.Lifetime > cfg.Keys.cfg.Lifetime:
		return nil, errors.New("token: a token would outlive its key")
	}
	if cfg.Profile == "" {
		cfg.Profile = Profile
	}
	if cfg.Writer == nil {
		cfg.Writer = Appraisal
	}
	return &Issuer{cfg: cfg}, nil
}

// Name is the iss of the tokens.
func (i *Issuer) Name() string { return i.cfg.Issuer }

// Issue signs a token under the given id and returns it with its expiry.
func (i *Issuer) Issue(ctx context.Context, id string, submods map[string]Submod) (string, time.Time, error) {
	k, err := i.cfg.Keys.signing(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	now := i.cfg.Now().UTC().Truncate(time.Second)
	exp := now.Add(i.cfg.Lifetime)
	written := make(map[string]any, len(submods))
	for name, s := range submods {
		written[name] = i.cfg.Writer(s)
	}
	raw, err := json.Marshal(payload{
		Profile: i.cfg.Profile, IssuedAt: now.Unix(), Expires: exp.Unix(), Issuer: i.cfg.Issuer, ID: id,
		Verifier: map[string]string{"developer": i.cfg.Developer, "build": i.cfg.Build},
		Submods:  written,
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("encode token: %w", err)
	}
	text, err := k.sign(raw)
	return text, exp, err
}
