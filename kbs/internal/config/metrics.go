package config

import "time"

// Metrics settings of what /metrics tells beyond counting.
type Metrics struct {
	// NearExpiryHours is how long before its end a reference value counts as
	// near its expiry.
	NearExpiryHours int `toml:"near_expiry_hours"`
}

func defaultMetrics() Metrics { return Metrics{NearExpiryHours: 72} }

func (m Metrics) validate(p *problems) {
	p.between("metrics.near_expiry_hours", m.NearExpiryHours, 1, 24*365)
}

// NearExpiry is how long before its end a reference value counts as near it.
func (m Metrics) NearExpiry() time.Duration { return time.Duration(m.NearExpiryHours) * time.Hour }
