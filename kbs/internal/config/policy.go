package config

// Policy says how policies are kept, and how they come into force.
type Policy struct {
	// RequireStages refuses to put a policy in force that was not in the
	// shadow stage.
	RequireStages bool `toml:"require_stages"`
	// MaxVersions is how many versions of a policy are kept.
	MaxVersions int `toml:"max_versions"`
	// RecordDecisions keeps distinct inputs of policies, without their volatile
	// members, so that a candidate can be replayed over them.
	RecordDecisions bool `toml:"record_decisions"`
	// MaxDecisions is how many of them are kept, the last seen first, and
	// DecisionDays for how long.
	MaxDecisions int `toml:"max_decisions"`
	DecisionDays int `toml:"decision_days"`
}

func defaultPolicy() Policy {
	return Policy{MaxVersions: 50, RecordDecisions: true, MaxDecisions: 2000, DecisionDays: 30}
}

func (s Policy) validate(p *problems) {
	p.between("policy.max_versions", s.MaxVersions, 2, 10_000)
	p.between("policy.max_decisions", s.MaxDecisions, 1, 100_000)
	p.between("policy.decision_days", s.DecisionDays, 1, 3650)
}
