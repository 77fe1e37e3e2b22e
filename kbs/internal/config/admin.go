package config

// Admin settings.
type Admin struct {
	// TokenLifetimeHours is that of the token written at the first start.
	TokenLifetimeHours int `toml:"token_lifetime_hours"`
}
