package ctl

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// errNotReady is a verdict, not a failure: it sets the exit code and prints
// nothing.
var errNotReady = errors.New("the image would not run")

// preflight asks everything that decides whether an image runs, as far as that
// can be known without a guest.
type preflight struct {
	c         *cli
	ref       string
	j         judging
	initData  string
	refvalues []string
	claims    string   // file
	verdicts  []string // files
	evidence  []string // PLATFORM=FILE
	bound     string   // report data of the evidence, hex
	// attestation is the id of the attestation policies, without class.
	attestation string

	document     *initdata.Document // the init-data; nil: none
	initDataText string
	cfg          registry.Config
	at           located
	broker       *admin.Client // nil: it cannot be asked
	keys         []string      // paths of the layers' keys at the broker
}

func (p *preflight) all(ctx context.Context) ([]check, error) {
	var err error
	if p.cfg, err = p.c.registry(p.j.reg); err != nil {
		return nil, err
	}
	defer func() {
		if p.broker != nil {
			p.broker.Close()
		}
	}()
	var noBroker error
	p.broker, noBroker = p.c.client()
	checks := []check{p.image(ctx)}
	started, err := p.readInitData()
	if err != nil {
		return nil, err
	}
	checks = append(checks, started...)
	if p.at.image == nil {
		return append(checks, open("key", "", "the image is not at hand")), nil
	}
	checks = append(checks, p.imagePolicy(ctx)...)
	checks = append(checks, p.signature(ctx))
	if noBroker != nil {
		return append(checks, broken("key", "", noBroker)), nil
	}
	checks = append(checks, p.layerKeys(ctx)...)
	checks = append(checks, p.policyKeys(ctx)...)
	values, err := p.c.refValues(p.refvalues)
	if err != nil {
		return nil, err
	}
	checks = append(checks, p.values(ctx, values))
	guest, err := p.appraise(ctx)
	if err != nil {
		return nil, err
	}
	releases := p.releases(ctx, guest)
	guest.settled(releases)
	return append(append(checks, guest.checks...), releases...), nil
}

func (p *preflight) image(ctx context.Context) check {
	at, err := p.j.find(ctx, p.ref, p.cfg)
	if err != nil {
		return broken("image", "kbsctl image inspect "+p.ref, imageError(err))
	}
	p.at = at
	return passed("image", "%s\n%s, %d layers", at.ref, at.image.Manifest.Digest, len(at.image.Image.Layers))
}

// guestDocument is the part of cdh.toml that decides about images
// (guest-protocol 14.1).
type guestDocument struct {
	Image struct {
		Policy    string `toml:"image_security_policy"`
		PolicyURI string `toml:"image_security_policy_uri"`
	} `toml:"image"`
	Vouchsafe map[string]any `toml:"vouchsafe"`
}

// readInitData also takes the image policy out of the document.
func (p *preflight) readInitData() ([]check, error) {
	const name = "init-data"
	if p.initData == "" {
		return nil, nil
	}
	raw, err := given.File(p.initData, maxConfig)
	if err != nil {
		return nil, usagef("%w", err)
	}
	doc, err := initdata.Parse(raw)
	if err != nil {
		return []check{refused(name, "mend "+p.initData, "%v", err)}, nil
	}
	var guest guestDocument
	if text, ok := doc.Data()["cdh.toml"]; ok {
		if err := toml.Unmarshal([]byte(text), &guest); err != nil {
			return []check{refused(name, "mend cdh.toml in "+p.initData, "cdh.toml: %v", err)}, nil
		}
	}
	p.document, p.initDataText = doc, string(raw)
	checks := []check{passed(name, "%s digest %s", doc.Algorithm(), hex.EncodeToString(doc.Digest()))}
	for key, v := range guest.Vouchsafe {
		if on, is := v.(bool); is && on && strings.HasPrefix(key, "insecure_") {
			checks[0].Detail += "\nwaived: " + key
		}
	}
	switch {
	case p.j.policy != "":
	case guest.Image.PolicyURI != "":
		p.j.policyURI = guest.Image.PolicyURI // wins over the inline one
	case guest.Image.Policy != "":
		p.j.policyText = []byte(guest.Image.Policy)
	}
	return checks, nil
}

func (p *preflight) signature(ctx context.Context) check {
	const name = "signature"
	switch {
	case p.j.policy == "" && p.j.policyURI != "" && p.j.policyText == nil:
		return open(name, "give the policy's text with --image-policy FILE", "the guest will fetch its image policy from %s", p.j.policyURI)
	case p.j.policy == "" && p.j.policyText == nil && p.initData != "":
		return refused(name, "set image_security_policy or image_security_policy_uri in [image] of cdh.toml", "no image policy is named in the init-data: a guest without one runs nothing")
	case p.j.policy == "" && p.j.policyText == nil:
		return open(name, "--image-policy FILE, or --init-data FILE", "which image policy will the guest have?")
	}
	v, err := p.j.judge(ctx, p.at, p.cfg)
	if err != nil {
		err, next := imageError(err), "mend the image policy"
		if fault.CodeOf(err) == fault.ImageUnsigned {
			next = "kbsctl image sign " + p.ref + " --key FILE, with a key that the policy wants"
		}
		return broken(name, next, err)
	}
	if v.Waived {
		return passed(name, "scope %s accepts the image WITHOUT any signature", v.Scope)
	}
	return passed(name, "scope %s, signed by %s", v.Scope, strings.Join(v.Signers, ", "))
}

// brokerKeys are the keys of the policy that a guest fetches from the broker.
func (j *judging) brokerKeys(ref registry.Reference) []string {
	raw, err := j.text()
	if err != nil || raw == nil {
		return nil
	}
	rules, err := trust.ParsePolicy(raw)
	if err != nil {
		return nil
	}
	var uris []string
	for _, path := range rules.KeyPaths(ref) {
		if strings.HasPrefix(path, "kbs:///") {
			uris = append(uris, path)
		}
	}
	return uris
}
