// Package kms opens sealed secrets whose provider is not the broker: HashiCorp
// Vault and OpenBao, and the key and secret services of AWS, Google, Azure and
// Alibaba (guest-protocol 10.3). The agent in the guest opens with it what
// kbsctl sealed with it.
//
// What a service asks a caller to prove himself with comes from the broker after
// attestation, and is asked for again each time a secret is opened: never from
// files that somebody put into the guest, from its environment, or from a
// metadata service, which the host would answer. The broker thus stays the one
// that decides, whatever holds the values; see ADR 46, also for why these are
// five small clients and not five vendors' libraries.
//
// The settings of a provider name its address and its credential. Whoever writes
// them chooses where a credential goes, so secrets that nobody signed must not
// be opened here.
//
// Services are strangers: their answers are bounded, redirects are not followed,
// and TLS is verified, with the settings' root certificates alone if they name
// some. Errors are *fault.Fault, without credentials or values:
//
//	sealed_secret_invalid  settings, names or ciphertexts that are wrong
//	unauthenticated        the credential is malformed, or the service refuses it
//	forbidden, not_found   the service's decision
//	unavailable            no answer, or none that makes sense
//	unsupported            a provider or a way to log in that is not for guests
package kms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Config says whom an Opener asks.
type Config struct {
	// Fetch gets a resource from the broker.
	Fetch func(ctx context.Context, uri string) (secret.Bytes, error)
	// Files has the resources of [[credentials]] by the path that they are
	// written to. Settings of the field's form name paths; what is used is the
	// resource, not the file.
	Files map[string]string
	// Timeout of one try; 0 is 10 s.
	Timeout time.Duration
	Now     func() time.Time // nil: time.Now
	// Pause waits between two tries; nil: [pause.For].
	Pause func(ctx context.Context, d time.Duration) error
}

// Opener opens sealed secrets. It is safe for concurrent use, and keeps logins:
// secrets of the same settings and the same credential share one.
type Opener struct {
	fetch    func(ctx context.Context, uri string) (secret.Bytes, error)
	files    files
	env      env
	sessions sessions
}

// env is what clients of services work with.
type env struct {
	now     func() time.Time
	pause   func(ctx context.Context, d time.Duration) error
	timeout time.Duration
}

// service is one service, as one caller.
type service interface {
	// secret returns the value of a secret.
	secret(ctx context.Context, name string, annotations map[string]any) (secret.Bytes, error)
	// decrypt opens what encrypt made.
	decrypt(ctx context.Context, keyID string, wrapped []byte, annotations map[string]any) (secret.Bytes, error)
	encrypt(ctx context.Context, keyID string, key secret.Bytes) (Wrapped, error)
	close()
}

// driver is a provider with settings, before it has credentials.
type driver interface {
	// needs are the resources that hold its credentials.
	needs() []string
	// open makes a client of the values of needs, which the caller keeps.
	open(e env, credentials []secret.Bytes) (service, error)
}

// drivers read the settings of each provider.
var drivers = map[string]func(settings map[string]any, f files) (driver, error){
	"vault": newVault, "aws": newAWS, "gcp": newGCP, "azure": newAzure, "aliyun": newAliyun,
}

// Known reports whether a provider is one of this package. Case does not matter
// (guest-protocol 10.3).
func Known(provider string) bool { return drivers[strings.ToLower(provider)] != nil }

// Check refuses settings that no guest would accept. That a path of the field's
// is among a guest's [[credentials]] cannot be known here.
func Check(provider string, settings map[string]any) error {
	_, err := plan(strings.ToLower(provider), settings, nil)
	if errors.Is(err, errNoCredential) {
		return nil
	}
	return err
}

// plan reads the settings of a provider.
func plan(provider string, settings map[string]any, f files) (driver, error) {
	parse := drivers[provider]
	if parse == nil {
		return nil, fault.Newf(fault.Unsupported, "sealed secrets of provider %.64q cannot be opened", provider)
	}
	d, err := parse(settings, f)
	if err != nil {
		return nil, fault.Newf(fault.SealedInvalid, "provider %s: %w", provider, err)
	}
	return d, nil
}

const defaultTimeout = 10 * time.Second

// New returns an opener. It contacts nobody.
func New(c Config) *Opener {
	o := &Opener{fetch: c.Fetch, files: c.Files, env: env{now: c.Now, pause: c.Pause, timeout: c.Timeout}}
	if o.env.now == nil {
		o.env.now = time.Now
	}
	if o.env.pause == nil {
		o.env.pause = pause.For
	}
	if o.env.timeout == 0 {
		o.env.timeout = defaultTimeout
	}
	return o
}

// Close forgets all logins. Whoever opens a secret later logs in anew.
func (o *Opener) Close() { o.sessions.close() }

// Open returns the value of a sealed secret. The caller owns it.
func (o *Opener) Open(ctx context.Context, p *sealed.Payload) (secret.Bytes, error) {
	s, done, err := o.service(ctx, p.Provider, p.Settings)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer done()
	if p.Type != sealed.Envelope {
		return s.secret(ctx, p.Name, p.Annotations)
	}
	wrapped, err := p.Key()
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	key, err := s.decrypt(ctx, p.KeyID, wrapped, p.Annotations)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer key.Destroy()
	value, err := p.Envelopment.Open(key)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.SealedInvalid, err)
	}
	return value, nil
}

// Wrapped is a key under one of a service.
type Wrapped struct {
	KeyID       string // that opens it; may say the version that the caller did not
	Ciphertext  []byte
	Annotations map[string]any // that opening it needs
}

// Wrap has a service encrypt the key of an envelope.
func (o *Opener) Wrap(ctx context.Context, provider string, settings map[string]any, keyID string, key secret.Bytes) (Wrapped, error) {
	s, done, err := o.service(ctx, provider, settings)
	if err != nil {
		return Wrapped{}, err
	}
	defer done()
	return s.encrypt(ctx, keyID, key)
}

// service finds or makes the client for settings, with credentials that the
// broker gives out now. The caller calls done when it needs it no more.
func (o *Opener) service(ctx context.Context, provider string, settings map[string]any) (s service, done func(), err error) {
	provider = strings.ToLower(provider)
	d, err := plan(provider, settings, o.files)
	if err != nil {
		return nil, nil, err
	}
	var credentials []secret.Bytes
	defer func() {
		for _, c := range credentials {
			c.Destroy()
		}
	}()
	for _, uri := range d.needs() {
		c, err := o.fetch(ctx, uri)
		if err != nil {
			return nil, nil, fault.Newf(fault.Unavailable, "credential of provider %s: %w", provider, err)
		}
		credentials = append(credentials, c)
		if c.Len() == 0 || c.Len() > maxCredential {
			return nil, nil, fault.Newf(fault.Unauthenticated, "the credential of provider %s has %d bytes", provider, c.Len())
		}
	}
	raw, err := json.Marshal(settings)
	if err != nil {
		return nil, nil, fault.New(fault.SealedInvalid, err)
	}
	return o.sessions.use(identity(provider, raw, credentials), func() (service, error) { return d.open(o.env, credentials) })
}

const maxCredential = 64 << 10 // bytes

// files are resources by the path that the field knows them under.
type files map[string]string

// credential is the resource that settings name, or that is at the field's path.
func (f files) credential(named, path string) (string, error) {
	if named != "" {
		return named, nil
	}
	if uri, ok := f[path]; ok {
		return uri, nil
	}
	if path == "" {
		return "", errors.New("provider_settings name no credential")
	}
	return "", fmt.Errorf("%w %.200q", errNoCredential, path)
}

// errNoCredential is for a path that is not configured here.
var errNoCredential = errors.New("provider_settings name no credential, and no [[credentials]] of cdh.toml has the path")

// read reads settings or annotations into a structure that has a place for each:
// what nobody reads may have been meant to restrict something.
func read(what string, members map[string]any, v any) error {
	raw, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if members == nil {
		raw = []byte("{}")
	}
	if err := strictjson.Check(raw); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// A form is what names of a kind look like. Their length is a number beside it: as
// a bound within the expression it would cost every agent memory for each byte.
type form struct {
	form *regexp.Regexp
	max  int // bytes
}

func (f form) fits(name string) bool { return len(name) <= f.max && f.form.MatchString(name) }

// annotated reads annotations.
func annotated(members map[string]any, v any) error {
	if err := read("annotations", members, v); err != nil {
		return fault.New(fault.SealedInvalid, err)
	}
	return nil
}
