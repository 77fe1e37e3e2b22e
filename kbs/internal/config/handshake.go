package config

import (
	"regexp"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/rcar"
)

// Handshake says which guests are spoken with, and how.
type Handshake struct {
	// ProtocolVersions are the versions of the protocol that guests may speak,
	// from 0.2.0 and 0.4.0. Versions 0.1.0 and 0.1.1 have a switch of their own.
	ProtocolVersions []string `toml:"protocol_versions"`
	// InsecureProtocol01 accepts guests of protocol 0.1.0 and 0.1.1. Resources
	// go to them under RSA with PKCS#1 v1.5: who can ask such a guest whether
	// a padding was right can read them.
	InsecureProtocol01 bool `toml:"insecure_protocol_0_1"`
	// AttestationPolicySelectors map the names that guests may ask for to
	// attestation policies, by their id without class: "default" stands for
	// default_cpu, default_gpu and so on. What a guest asks for is a hint;
	// resource policies can look at ear.appraisal-policy-id.
	AttestationPolicySelectors map[string]string `toml:"attestation_policy_selectors"`
}

func defaultHandshake() Handshake {
	return Handshake{ProtocolVersions: []string{string(rcar.V040), string(rcar.V020)}, AttestationPolicySelectors: map[string]string{}}
}

// Versions returns what is accepted, newest first.
func (h Handshake) Versions() []rcar.Version {
	var out []rcar.Version
	for _, v := range rcar.Versions() {
		if v.Unsafe() && h.InsecureProtocol01 || slices.Contains(h.ProtocolVersions, string(v)) {
			out = append(out, v)
		}
	}
	return out
}

func (h Handshake) insecure() []string {
	if h.InsecureProtocol01 {
		return []string{"attestation_service.insecure_protocol_0_1"}
	}
	return nil
}

// policyName is the form of a selector and of a policy's id. An id has room for
// its class.
var policyName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,47}$`)

func (h Handshake) validate(p *problems) {
	for _, text := range h.ProtocolVersions {
		switch v := rcar.Version(text); {
		case !v.Known():
			p.bad("attestation_service.protocol_versions", "%q is not a version of the protocol", text)
		case v.Unsafe():
			p.bad("attestation_service.protocol_versions", "%s is unsafe: use insecure_protocol_0_1", text)
		}
	}
	if len(h.Versions()) == 0 {
		p.bad("attestation_service.protocol_versions", "at least one is needed")
	}
	for name, id := range h.AttestationPolicySelectors {
		if !policyName.MatchString(name) || !policyName.MatchString(id) {
			p.bad("attestation_service.attestation_policy_selectors", "%q = %q: both are up to 48 of [A-Za-z0-9_.-]", name, id)
		}
	}
}
