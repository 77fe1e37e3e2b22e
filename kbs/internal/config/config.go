// Package config reads the broker's configuration.
//
// There is one file, TOML, YAML or JSON by its extension, with drop-ins beside
// it; environment variables and flags go before it (see [Read]).
//
// Keys are those of the field's brokers where the meaning is the same
// (kbs-protocol 13.1). Reading is strict: an unknown or mistyped key is an
// error that names its line, because a misspelt security setting must not be
// silently ignored. Every setting that weakens the broker begins with
// "insecure_".
package config

import "strings"

// maxSize limits a configuration file, in bytes.
const maxSize = 1 << 20

// Config is the whole configuration, with every default filled in.
//
// A section lives in a file of its own, with its defaults, its validation and
// what in it is insecure; here it has a line each. The comments of the members
// are the documentation of the keys: `kbs config schema` and
// docs/reference/config.md show them. See binder for the tags.
type Config struct {
	// StateDir holds the store and the keys.
	StateDir           string             `toml:"state_dir" kind:"path"`
	HTTPServer         HTTPServer         `toml:"http_server"`
	Admin              Admin              `toml:"admin"`
	Tenants            Tenants            `toml:"tenants"`
	AttestationService AttestationService `toml:"attestation_service"`
	AttestationToken   AttestationToken   `toml:"attestation_token"`
	RVPS               RVPS               `toml:"rvps"`
	Verifier           Verifier           `toml:"verifier"`
	Collateral         Collateral         `toml:"collateral"`
	MasterKey          MasterKey          `toml:"master_key"`
	StorageBackend     StorageBackend     `toml:"storage_backend"`
	Resources          Resources          `toml:"resources"`
	ResourceBackends   []ResourceBackend  `toml:"resource_backends,omitempty"`
	Audit              Audit              `toml:"audit"`
	Limits             Limits             `toml:"limits"`
	Logging            Logging            `toml:"logging"`
	Metrics            Metrics            `toml:"metrics"`
	Tracing            Tracing            `toml:"tracing"`
	Policy             Policy             `toml:"policy"`
	Plugins            []Plugin           `toml:"plugins"`
}

// Default returns the configuration of a broker that was told nothing:
// loopback only, TLS with a certificate of its own.
func Default(getenv func(string) string) Config {
	dir := getenv("STATE_DIRECTORY") // systemd; it may list several
	if first, _, _ := strings.Cut(dir, ":"); first != "" {
		dir = first
	} else {
		dir = "state"
	}
	return Config{
		StateDir:           dir,
		HTTPServer:         defaultHTTPServer(),
		Admin:              defaultAdmin(),
		Tenants:            defaultTenants(),
		AttestationService: defaultAttestationService(),
		AttestationToken:   defaultAttestationToken(),
		RVPS:               defaultRVPS(),
		Verifier:           defaultVerifier(),
		Collateral:         defaultCollateral(),
		MasterKey:          defaultMasterKey(),
		StorageBackend:     defaultStorageBackend(),
		Resources:          defaultResources(),
		Audit:              defaultAudit(),
		Limits:             defaultLimits(),
		Logging:            defaultLogging(),
		Metrics:            defaultMetrics(),
		Tracing:            defaultTracing(),
		Policy:             defaultPolicy(),
		Plugins:            []Plugin{},
	}
}

// Insecure lists the settings in force that weaken the broker.
func (c Config) Insecure() []string {
	var out []string
	out = append(out, c.HTTPServer.insecure()...)
	out = append(out, c.AttestationService.insecure()...)
	out = append(out, c.AttestationToken.insecure()...)
	out = append(out, c.RVPS.insecure()...)
	out = append(out, c.Admin.insecure()...)
	out = append(out, c.Verifier.insecure()...)
	out = append(out, c.Collateral.insecure()...)
	out = append(out, c.MasterKey.insecure()...)
	out = append(out, c.StorageBackend.insecure()...)
	for _, b := range c.ResourceBackends {
		out = append(out, b.insecure("resource_backends."+b.Name)...)
	}
	out = append(out, c.Audit.insecure()...)
	out = append(out, c.Tracing.insecure()...)
	return out
}

// Validate reports all that is wrong, not only the first.
func (c Config) Validate() error {
	var p problems
	if c.StateDir == "" {
		p.bad("state_dir", "must not be empty")
	}
	c.HTTPServer.validate(&p)
	c.Admin.validate(&p)
	c.Tenants.validate(&p)
	c.AttestationService.validate(&p)
	c.AttestationToken.validate(&p)
	c.RVPS.validate(&p)
	c.Verifier.validate(&p)
	c.Collateral.validate(&p)
	p = append(p, c.MasterKey.validate()...)
	c.StorageBackend.validate(&p)
	p = append(p, validateResources(c.Resources, c.ResourceBackends)...)
	c.Audit.validate(&p)
	c.Limits.validate(&p)
	c.Logging.validate(&p)
	c.Metrics.validate(&p)
	c.Tracing.validate(&p)
	c.Policy.validate(&p)
	validatePlugins(c.Plugins, &p)
	return p.err()
}

// MaxBody limits a request body, in bytes.
func (c Config) MaxBody() int64 { return int64(c.HTTPServer.PayloadRequestSize) << 20 }
