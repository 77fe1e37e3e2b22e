package attestation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/challenge"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
)

// ErrVersion is in the cause of a fault with code protocol_version_unsupported.
// Clients of the field look for its text (kbs-protocol 3.1).
type ErrVersion struct {
	Version  string
	Accepted []rcar.Version
}

// Error is the one detail that an unattested caller is told in words.
func (e ErrVersion) Error() string {
	accepted := make([]string, len(e.Accepted))
	for i, v := range e.Accepted {
		accepted[i] = "=" + string(v)
	}
	return fmt.Sprintf("KBS Client Protocol Version Mismatch: expect %s while the request is %s", strings.Join(accepted, ", "), e.Version)
}

// params is the part of extra-params that the broker reads. The selector of an
// attestation policy has had three names (kbs-protocol 3.9).
type params struct {
	Hashes   []string `json:"supported-hash-algorithms"`
	Selector string   `json:"attestation-policy-selector"`
	Policy   string   `json:"policy-selector"`
	ID       string   `json:"id"`
}

// parseParams takes anything but an object for no parameters at all: the
// protocol allows any JSON there, and clients send "".
func parseParams(raw json.RawMessage) (params, error) {
	var p params
	if text := bytes.TrimSpace(raw); len(text) == 0 || text[0] != '{' {
		return p, nil
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return params{}, fmt.Errorf("extra-params: %w", err)
	}
	return p, nil
}

// selector returns the selection, "" if there is none.
func (p params) selector() (string, error) {
	out := ""
	for _, s := range []string{p.Selector, p.Policy, p.ID} {
		if out != "" && s != "" && s != out {
			return "", errors.New("extra-params select two attestation policies")
		}
		if s != "" {
			out = s
		}
	}
	return out, nil
}

// negotiate decides everything about a handshake but its secrets. The challenge
// tells what was decided also where it refuses. Every error is a *fault.Fault.
func (s *Service) negotiate(req api.Request) (c challenge.Challenge, extra json.RawMessage, err error) {
	version, ok := s.version(req.Version)
	if !ok {
		return c, nil, fault.New(fault.VersionUnsupported, ErrVersion{clip(req.Version, 32), s.cfg.Versions})
	}
	c.Version = string(version)
	if c.Platform = canonicalTEE(req.TEE); c.Platform == "" {
		return c, nil, fault.Newf(fault.PlatformDisabled, "%q is not the name of a platform", clip(req.TEE, 32))
	}
	if !s.serves(c.Platform) {
		return c, nil, fault.Newf(fault.PlatformDisabled, "platform %s is not enabled", c.Platform)
	}
	p, err := parseParams(req.ExtraParams)
	if err != nil {
		return c, nil, fault.New(fault.InvalidRequest, err)
	}
	if c.Policy, err = s.policy(p); err != nil {
		return c, nil, err
	}
	var selected bool
	if c.Hash, selected, err = chooseHash(c.Platform, p.Hashes); err != nil {
		return c, nil, fault.New(fault.InvalidRequest, err)
	}
	if !selected {
		return c, api.NoExtraParams(), nil
	}
	extra, err = api.ExtraParams{SelectedHashAlgorithm: c.Hash}.Raw()
	if err != nil {
		return c, nil, fault.New(fault.Internal, err)
	}
	return c, extra, nil
}

// serves reports whether evidence of a platform can be judged. What another
// service verifies it knows itself; only Secure Execution needs a challenge of
// its making, which does not go through here.
func (s *Service) serves(platform string) bool {
	if s.cfg.Remote != nil {
		return platform != "se"
	}
	return s.enabled(platform)
}

func (s *Service) version(text string) (rcar.Version, bool) {
	for _, v := range s.cfg.Versions {
		if string(v) == text {
			return v, true
		}
	}
	return "", false
}

// policy maps the guest's selection. What it selects is a hint: a resource
// policy that cares looks at ear.appraisal-policy-id.
func (s *Service) policy(p params) (string, error) {
	name, err := p.selector()
	if err != nil {
		return "", fault.New(fault.InvalidRequest, err)
	}
	if name == "" || name == policy.DefaultID {
		return policy.DefaultID, nil
	}
	id, ok := s.cfg.Selectors[name]
	if !ok {
		return "", fault.Newf(fault.SelectorUnknown, "there is no attestation policy selector %q", clip(name, 64))
	}
	return id, nil
}

// chooseHash returns the hash that binds the evidence, and whether the guest
// must be told: it is SHA-384 for everyone, and SHA-512 for Secure Execution
// (kbs-protocol 3.2, 3.5). A guest that lists what it has, and has not that,
// gets the strongest of its list.
func chooseHash(platform string, supported []string) (name string, selected bool, err error) {
	order := []string{"sha384", "sha512", "sha256"}
	if platform == "se" {
		order = []string{"sha512"}
	}
	if len(supported) == 0 {
		return order[0], false, nil
	}
	for _, name := range order {
		for _, s := range supported {
			if strings.EqualFold(s, name) {
				return name, name != "sha384", nil
			}
		}
	}
	return "", false, fmt.Errorf("none of the hash algorithms %s is among those of the guest", strings.Join(order, ", "))
}

// IsPlatform reports whether a name is the protocol's for a platform.
func IsPlatform(name string) bool { return name != "" && canonicalTEE(name) == name }

// canonicalTEE returns the protocol's spelling of a platform (kbs-protocol
// 3.8), or "" for a name that it does not know.
func canonicalTEE(name string) string {
	switch name {
	case "azsnpvtpm":
		return "az-snp-vtpm"
	case "aztdxvtpm":
		return "az-tdx-vtpm"
	case "nvidiadpu":
		return "nvidia-dpu"
	case "az-snp-vtpm", "az-tdx-vtpm", "nvidia", "nvidia-dpu", "sgx", "snp", "tdx", "cca", "csv", "se",
		"hygondcu", "tpm", "sample", "sampledevice":
		return name
	}
	return ""
}
