package config

import (
	"fmt"
	"net/url"
	"time"
)

// Collateral settings: where the broker finds what vendors publish about their
// platforms, which verifiers need. Nobody is asked unless this names him.
type Collateral struct {
	// Enabled lets the verifiers of snp, tdx and sgx ask for collateral. It is
	// kept in the directory collateral of state_dir, where 'measure collateral
	// import' puts it too.
	Enabled bool `toml:"enabled"`
	// Files are directories with collateral, as vendors serve it or as 'measure
	// collateral' keeps it. The services are asked first, but for certificates of
	// chips.
	Files []string `toml:"files" kind:"path"`
	// GraceHours is how long something is used after its end while nothing newer
	// is to be had. Verdicts name what was accepted by it.
	GraceHours int `toml:"grace_hours"`
	// RefreshHours is how often lists and documents are asked for anew.
	RefreshHours int             `toml:"refresh_hours"`
	Intel        IntelCollateral `toml:"intel"`
	AMD          AMDCollateral   `toml:"amd"`
}

// IntelCollateral names a service of Intel's interface.
type IntelCollateral struct {
	// Service is the address of Intel's PCS, https://api.trustedservices.intel.com,
	// or of a PCCS; empty asks nobody.
	Service string `toml:"service"`
	// RootCRL is the address of the root's revocation list. Empty is Intel's for
	// Intel's PCS; a PCCS has the list itself.
	RootCRL string `toml:"root_crl"`
	// Early asks for evaluations that vendors get before all others.
	Early bool `toml:"early"`
	// CAFile (PEM) verifies the service's certificate beside the system's roots.
	CAFile string `toml:"ca_file" kind:"path" file:"certificates"`
	// InsecureHTTP allows addresses without TLS: what comes is signed all the
	// same, but anyone on the way can hold back news of a revocation.
	InsecureHTTP bool `toml:"insecure_http"`
}

// AMDCollateral names a service of AMD's interface.
type AMDCollateral struct {
	// Service is the address of AMD's KDS, https://kdsintf.amd.com, or of a cache
	// with its paths; empty asks nobody.
	Service string `toml:"service"`
	// CAFile (PEM) verifies the service's certificate beside the system's roots.
	CAFile string `toml:"ca_file" kind:"path" file:"certificates"`
	// InsecureHTTP allows an address without TLS.
	InsecureHTTP bool `toml:"insecure_http"`
}

func defaultCollateral() Collateral { return Collateral{Files: []string{}, RefreshHours: 24} }

// Grace is grace_hours.
func (c Collateral) Grace() time.Duration { return time.Duration(c.GraceHours) * time.Hour }

// RefreshEvery is refresh_hours.
func (c Collateral) RefreshEvery() time.Duration { return time.Duration(c.RefreshHours) * time.Hour }

func (c Collateral) insecure() []string {
	var out []string
	if c.Intel.InsecureHTTP {
		out = append(out, "collateral.intel.insecure_http")
	}
	if c.AMD.InsecureHTTP {
		out = append(out, "collateral.amd.insecure_http")
	}
	return out
}

func (c Collateral) validate(p *problems) {
	p.between("collateral.grace_hours", c.GraceHours, 0, 24*90)
	p.between("collateral.refresh_hours", c.RefreshHours, 1, 24*30)
	for i, dir := range c.Files {
		if dir == "" {
			p.bad(fmt.Sprintf("collateral.files[%d]", i), "must not be empty")
		}
	}
	set := len(c.Files) > 0 || c.GraceHours > 0 || c.Intel != IntelCollateral{} || c.AMD != AMDCollateral{}
	if !c.Enabled && set {
		p.bad("collateral", "settings are given, but enabled is false")
	}
	service(p, "collateral.intel.service", c.Intel.Service, c.Intel.InsecureHTTP)
	service(p, "collateral.intel.root_crl", c.Intel.RootCRL, c.Intel.InsecureHTTP)
	service(p, "collateral.amd.service", c.AMD.Service, c.AMD.InsecureHTTP)
	if c.Intel.Service == "" && c.Intel != (IntelCollateral{}) {
		p.bad("collateral.intel.service", "must be set, as other settings of it are")
	}
	if c.AMD.Service == "" && c.AMD != (AMDCollateral{}) {
		p.bad("collateral.amd.service", "must be set, as other settings of it are")
	}
}

// service checks the address of somebody who is asked; empty is nobody.
func service(p *problems, key, address string, insecureHTTP bool) {
	if address == "" {
		return
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		p.bad(key, "%q is not an http or https address", address)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !insecureHTTP:
		p.bad(key, "must have TLS (or set insecure_http)")
	}
}
