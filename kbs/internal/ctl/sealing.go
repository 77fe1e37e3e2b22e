package ctl

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// providerKBS is the provider whose secrets lie at the broker.
const providerKBS = "kbs"

// maxSealed bounds a value in an envelope, which is half as long again when it is
// sealed; maxCredential what logs in at a provider. In bytes.
const (
	maxSealed     = sealed.MaxSize / 2
	maxCredential = 64 << 10
)

// seal makes a sealed secret and sees that guests will open it.
func (c *cli) seal(ctx context.Context, args []string, f sealFlags) (string, error) {
	at, err := resourcePath(f.kid)
	if err != nil {
		return "", err
	}
	kid := "kbs:///" + at
	key, err := signingKey(f.sign)
	if err != nil {
		return "", err
	}
	p := &sealed.Payload{Type: sealed.Vault, Provider: strings.ToLower(f.provider)}
	if p.Settings, err = readMembers("settings", f.settings); err != nil {
		return "", err
	}
	if p.Annotations, err = readMembers("annotations", f.annotations); err != nil {
		return "", err
	}
	if err := f.check(p.Provider); err != nil {
		return "", err
	}
	if err := settled(p); err != nil {
		return "", err
	}
	switch {
	case f.value != "":
		err = c.envelop(ctx, p, f)
	case p.Provider == providerKBS:
		if p.Name, err = resourcePath(args[0]); err == nil {
			p.Name = "kbs:///" + p.Name
		}
	default:
		p.Name = args[0]
	}
	if err != nil {
		return "", err
	}
	text, err := sealed.Sign(p, kid, key)
	if err != nil {
		return "", usagef("%w", err)
	}
	public, err := sealed.PublicJWK(&key.PublicKey, kid)
	if err != nil {
		return "", err
	}
	if _, err := sealed.Open(ctx, text, func(context.Context, string) ([]byte, error) { return public, nil }); err != nil {
		return "", invalidf("what was sealed does not open: %w", err)
	}
	return text, writeJWK(f.jwk, kid, key)
}

// check refuses flags that do not go together.
func (f sealFlags) check(provider string) error {
	own := provider == providerKBS
	switch {
	case !own && !kms.Known(provider):
		return usagef("--provider %s: there is no such provider", f.provider)
	case own && (f.settings != "" || f.annotations != ""):
		return usagef("--settings and --annotations are for providers other than the broker")
	case !own && f.settings == "":
		return usagef("--provider %s needs --settings: where it is, and which credential guests have", f.provider)
	case f.value == "" && (f.keyID != "" || f.key != "" || f.credential != "" || f.encryptOnly):
		return usagef("--key-id, --key, --credential and --encrypt-only are for envelopes: add --value")
	case f.value != "" && f.keyID == "":
		return usagef("--value needs --key-id: the key that opens the envelope")
	case f.value != "" && own && (f.key == "" || f.credential != "" || f.encryptOnly):
		return usagef("an envelope for the broker needs --key, and nothing that logs in elsewhere")
	case f.value != "" && !own && (f.key != "" || f.credential == ""):
		return usagef("an envelope of provider %s needs --credential, and no --key", f.provider)
	case f.value != "" && f.annotations != "":
		return usagef("the annotations of an envelope are what the provider says")
	}
	return nil
}

// settled refuses settings that guests would refuse.
func settled(p *sealed.Payload) error {
	if p.Provider == providerKBS {
		return nil
	}
	if err := kms.Check(p.Provider, p.Settings); err != nil {
		return &failure{err: err, exit: fault.ExitUsage}
	}
	return nil
}

// envelop encrypts the value.
func (c *cli) envelop(ctx context.Context, p *sealed.Payload, f sealFlags) error {
	raw, err := c.readInput(f.value, maxSealed)
	if err != nil {
		return usagef("%w", err)
	}
	value := secret.New(raw)
	defer value.Destroy()
	var key secret.Bytes
	if p.Envelopment, key, err = sealed.NewEnvelopment(value); err != nil {
		return err
	}
	defer key.Destroy()
	p.Type = sealed.Envelope
	if p.Provider != providerKBS {
		return c.wrapElsewhere(ctx, p, f, key, value)
	}
	at, err := resourcePath(f.keyID)
	if err != nil {
		return err
	}
	kek, err := readKey(f.key, maxKeyFile)
	if err != nil {
		return err
	}
	defer kek.Destroy()
	wrapped, err := sealed.SealKey(kek, key)
	if err != nil {
		return usagef("--key %s: %w", f.key, err).hint("openssl rand -out %s 32, and store it at the broker as %s", f.key, at)
	}
	p.SetKey("kbs:///"+at, wrapped)
	return nil
}

// wrapElsewhere has a provider encrypt the key of an envelope, and open it.
func (c *cli) wrapElsewhere(ctx context.Context, p *sealed.Payload, f sealFlags, key, value secret.Bytes) error {
	credential, err := readKey(f.credential, maxCredential)
	if err != nil {
		return err
	}
	defer credential.Destroy()
	// Whatever the settings call the credential of guests, here it is this one.
	files := map[string]string{kms.AWSCredential: f.credential}
	if at, ok := p.Settings["token_path"].(string); ok {
		files[at] = f.credential
	}
	services := kms.New(kms.Config{Now: c.now, Files: files, Fetch: func(context.Context, string) (secret.Bytes, error) {
		return secret.Copy(credential.Reveal()), nil
	}})
	defer services.Close()
	wrapped, err := services.Wrap(ctx, p.Provider, p.Settings, f.keyID, key)
	if err != nil {
		return atProvider(p.Provider, err)
	}
	p.SetKey(wrapped.KeyID, wrapped.Ciphertext)
	p.Annotations = wrapped.Annotations
	if f.encryptOnly {
		return nil
	}
	again, err := services.Open(ctx, p)
	defer again.Destroy()
	if fault.CodeOf(err) == fault.Forbidden {
		return atProvider(p.Provider, err).hint("this credential encrypts and may not decrypt? then --encrypt-only; guests need one that may")
	}
	if err != nil {
		return atProvider(p.Provider, err)
	}
	if !again.Equal(value) {
		return invalidf("provider %s opens the envelope to something else", p.Provider)
	}
	return nil
}

// atProvider is a failure at a provider, which has nothing to do with the broker.
func atProvider(provider string, err error) *failure {
	f := &failure{err: err, exit: fault.CodeOf(err).Exit()}
	switch fault.CodeOf(err) {
	case fault.Unauthenticated:
		return f.hint("it is provider %s that does not accept this: look at --credential", provider)
	case fault.Forbidden:
		return f.hint("provider %s does not let this credential do it", provider)
	case fault.Unavailable:
		return f.hint("look at endpoint_url and root_certificates in --settings")
	default:
		return f
	}
}

// readMembers reads a JSON object; there is none without a file.
func readMembers(what, file string) (map[string]any, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := given.File(file, maxConfig)
	if err != nil {
		return nil, usagef("--%s: %w", what, err)
	}
	var members map[string]any
	err = strictjson.Check(raw)
	if err == nil {
		err = json.Unmarshal(raw, &members)
	}
	if err != nil || members == nil {
		return nil, usagef("--%s %s: want a JSON object", what, file)
	}
	return members, nil
}
