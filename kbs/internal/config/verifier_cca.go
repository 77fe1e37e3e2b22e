package config

// CCA settings of the verifier of Arm's Confidential Compute Architecture.
type CCA struct {
	Enabled bool `toml:"enabled"`
	// TrustStores name the machines that are trusted. No certificate vouches for
	// one of them, so without a store nothing is accepted. A store is a file with
	// public keys of machines, in JSON.
	TrustStores []NamedFile `toml:"trust_stores"`
	// InsecureSimulatedRoots are trust stores of machines that are not real.
	// Tokens that rest on one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	// InsecureAnyLifecycle accepts machines that are not secured: their debugger
	// may be open, or their keys not yet provisioned.
	InsecureAnyLifecycle bool `toml:"insecure_any_lifecycle"`
}

func defaultCCA() CCA {
	return CCA{TrustStores: []NamedFile{}, InsecureSimulatedRoots: []SimulatedRoot{}}
}

func (c CCA) insecure() []string {
	out := insecureRoots("verifier.cca", c.InsecureSimulatedRoots)
	if c.InsecureAnyLifecycle {
		out = append(out, "verifier.cca.insecure_any_lifecycle")
	}
	return out
}

func (c CCA) files() []string {
	out := rootFiles(c.InsecureSimulatedRoots)
	for _, s := range c.TrustStores {
		out = append(out, s.Path)
	}
	return out
}

func (c CCA) validate(p *problems) {
	all := c.InsecureSimulatedRoots[:len(c.InsecureSimulatedRoots):len(c.InsecureSimulatedRoots)]
	for _, s := range c.TrustStores {
		all = append(all, SimulatedRoot(s))
	}
	validateRoots("verifier.cca.trust_stores", all, p)
	switch {
	case c.Enabled && len(all) == 0:
		p.bad("verifier.cca.trust_stores", "must name a trust store: nothing else vouches for a machine")
	case !c.Enabled && (len(all) > 0 || c.InsecureAnyLifecycle):
		p.bad("verifier.cca", "settings are given, but enabled is false")
	}
}
