package world

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
)

// affirming releases to guests that the attestation policy has nothing against.
const affirming = `package policy
import rego.v1
default allow := false
allow if input.submods.cpu0["ear.status"] == "affirming"
`

// GiveKey has the broker release a secret under a name to the guests that an
// attestation policy affirms. The policy finds a value as the reference value wanted.
func (w *World) GiveKey(ctx context.Context, name, secret, policy string, wanted []byte) error {
	for file, text := range map[string]string{"attestation.rego": policy, "resource.rego": affirming, "secret": secret} {
		if err := os.WriteFile(w.Path(file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return w.apply(ctx, "key.yaml", fmt.Sprintf(`
kind: Policy
metadata: {name: attestation/default_cpu}
spec: {regoFile: attestation.rego}
---
kind: Policy
metadata: {name: resource/resource-policy}
spec: {regoFile: resource.rego}
---
kind: Resource
metadata: {name: %s}
spec: {valueFile: secret}
---
kind: RefValue
metadata: {name: wanted}
spec: {value: [%q]}
`, name, hex.EncodeToString(wanted)))
}
