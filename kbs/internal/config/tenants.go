package config

import "github.com/vouchsafe-cc/vouchsafe/kbs/api"

// Tenants is about those who share the broker. Who they are is not
// configuration: owners of the broker create them while it runs.
type Tenants struct {
	// Ready is how many tenants are kept ready in memory.
	Ready int `toml:"ready"`
	// Quotas are those of a tenant whose record says nothing else. They do not
	// limit the tenant "default".
	Quotas Quotas `toml:"quotas"`
}

// Quotas limit a tenant; 0 is no limit.
type Quotas struct {
	Resources int64 `toml:"resources"`
	Bytes     int64 `toml:"bytes"`
	Policies  int64 `toml:"policies"`
	RefValues int64 `toml:"refvalues"`
	Sessions  int64 `toml:"sessions_per_minute"`
	Releases  int64 `toml:"releases_per_minute"`
}

func defaultTenants() Tenants {
	return Tenants{Ready: 256, Quotas: Quotas{
		Resources: 10_000, Bytes: 1 << 30, Policies: 1_000, RefValues: 10_000, Sessions: 6_000, Releases: 60_000,
	}}
}

func (t Tenants) validate(p *problems) {
	p.between("tenants.ready", t.Ready, 1, 10_000)
	q := t.Quotas
	if min(q.Resources, q.Bytes, q.Policies, q.RefValues, q.Sessions, q.Releases) < 0 {
		p.bad("tenants.quotas", "must not be negative; 0 is no limit")
	}
}

// Of returns the limits that are in force for a tenant's quotas: 0 is none.
func (t Tenants) Of(q api.TenantQuotas) api.TenantQuotas {
	one := func(own, standard int64) int64 {
		switch own {
		case 0:
			return standard
		case -1:
			return 0
		default:
			return own
		}
	}
	d := t.Quotas
	return api.TenantQuotas{
		Resources: one(q.Resources, d.Resources), Bytes: one(q.Bytes, d.Bytes), Policies: one(q.Policies, d.Policies),
		RefValues: one(q.RefValues, d.RefValues), Sessions: one(q.Sessions, d.Sessions), Releases: one(q.Releases, d.Releases),
	}
}
