package policy

import (
	_ "embed" // the shipped policies

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

//go:embed defaults/default_cpu.rego
var defaultCPU string

//go:embed defaults/resource-policy.rego
var defaultResource string

// Defaults returns the policies that a new broker starts with. Neither accepts
// a simulated root; an administrator's own copy may name one.
func Defaults() []api.Policy {
	return []api.Policy{
		{Kind: string(Attestation), ID: DefaultCPU, Rego: defaultCPU},
		{Kind: string(Resource), ID: ResourcePolicy, Rego: defaultResource},
	}
}

// Required returns the policies without which a broker is not ready.
func Required() []api.Policy {
	return []api.Policy{{Kind: string(Attestation), ID: DefaultCPU}, {Kind: string(Resource), ID: ResourcePolicy}}
}
