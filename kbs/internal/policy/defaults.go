package policy

import (
	"embed" // the shipped policies

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

//go:embed defaults/*.rego
var shipped embed.FS

// Defaults returns the policies that a new broker starts with. None accepts a
// simulated root; an administrator's own copy may name one.
func Defaults() []api.Policy {
	out := []api.Policy{}
	for _, p := range []struct {
		kind Kind
		id   string
	}{
		{Attestation, DefaultCPU},
		{Attestation, "default_gpu"},
		{Attestation, "default_switch"},
		{Attestation, "default_ppcie"},
		{Resource, ResourcePolicy},
	} {
		text, err := shipped.ReadFile("defaults/" + p.id + ".rego")
		if err != nil {
			panic("policy: a default is not embedded: " + err.Error()) // the tests read each
		}
		out = append(out, api.Policy{Kind: string(p.kind), ID: p.id, Rego: string(text)})
	}
	return out
}

// Required returns the policies without which a broker is not ready.
func Required() []api.Policy {
	return []api.Policy{{Kind: string(Attestation), ID: DefaultCPU}, {Kind: string(Resource), ID: ResourcePolicy}}
}
