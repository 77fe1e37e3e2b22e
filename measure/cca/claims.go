package cca

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimSimulatedRoot is the claim that names the root of simulated evidence.
// It is absent under a trust store of real machines.
const ClaimSimulatedRoot = "simulated_root"

// claims are those of the token, with what the trust store adds.
func (a *examination) claims() measure.Claims {
	c := a.token.Claims()
	if a.anchor != nil && a.anchor.store.simulated {
		c[ClaimSimulatedRoot] = a.anchor.store.name
	}
	return c
}

// Claims returns what the token claims, whether or not it is true: the claims
// of kbs-protocol 16.7 under their names there, in padded standard base64, and
// the rest of the token under the names of its specification.
func (t *Token) Claims() measure.Claims {
	p, r := &t.Platform, &t.Realm
	extensible := make([]any, len(r.Extensible))
	for i, m := range r.Extensible {
		extensible[i] = b64(m)
	}
	realm := measure.Claims{
		"cca-realm-personalization-value":   b64(r.Personalization[:]),
		"cca-realm-initial-measurement":     b64(r.Initial),
		"cca-realm-extensible-measurements": extensible,
		"cca-realm-challenge":               b64(r.Challenge[:]),
		"cca-realm-hash-algo-id":            r.HashAlgorithm,
		// Ours.
		"cca-realm-profile":                 r.Profile,
		"cca-realm-public-key":              b64(r.PublicKey),
		"cca-realm-public-key-hash-algo-id": r.KeyHash,
	}
	components := make([]any, len(p.Components))
	for i, c := range p.Components {
		components[i] = measure.Claims{
			"measurement-type": c.Type, "measurement-value": b64(c.Measurement), "signer-id": b64(c.Signer),
			"version": c.Version, "hash-algo-id": c.HashAlgorithm,
		}
	}
	platform := measure.Claims{
		"cca-platform-instance-id":       b64(p.InstanceID[:]),
		"cca-platform-implementation-id": b64(p.ImplementationID[:]),
		// Ours.
		"cca-platform-profile":           p.Profile,
		"cca-platform-challenge":         b64(p.Challenge),
		"cca-platform-config":            b64(p.Config),
		"cca-platform-lifecycle":         json.Number(strconv.Itoa(int(p.Lifecycle))),
		"cca-platform-lifecycle-state":   p.State().String(),
		"cca-platform-sw-components":     components,
		"cca-platform-service-indicator": p.Service,
		"cca-platform-hash-algo-id":      p.HashAlgorithm,
	}
	return measure.Claims{
		"realm": realm, "platform": platform,
		"report_data": hex.EncodeToString(r.Challenge[:]),
		"init_data":   hex.EncodeToString(r.Personalization[:]),
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
