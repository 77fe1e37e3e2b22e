package config

import "regexp"

// Verifier has one table for each platform.
type Verifier struct {
	SNP    SNP    `toml:"snp"`
	Sample Sample `toml:"sample"`
}

// Sample settings of the verifier that believes what it is told.
type Sample struct {
	// InsecureEnabled accepts the platforms sample and sampledevice, whose
	// evidence anyone can write. Tokens say so, and the default policies refuse
	// them.
	InsecureEnabled bool `toml:"insecure_enabled"`
}

// SNP settings of the AMD SEV-SNP verifier.
type SNP struct {
	Enabled bool `toml:"enabled"`
	// InsecureSimulatedRoots are trusted beside AMD's roots. Tokens that rest
	// on one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	InsecureNoRevocation   bool            `toml:"insecure_no_revocation"`
	// RevocationLists are AMD's CRLs by processor generation (Milan, Genoa,
	// Turin), each the path of a file as AMD serves it.
	RevocationLists map[string]string `toml:"revocation_lists" kind:"path"`
}

// SimulatedRoot names a root bundle (PEM) made by a simulated vendor.
type SimulatedRoot struct {
	Name string `toml:"name"`
	Path string `toml:"path" kind:"path"`
}

func defaultVerifier() Verifier {
	return Verifier{SNP: SNP{Enabled: true, InsecureSimulatedRoots: []SimulatedRoot{}, RevocationLists: map[string]string{}}}
}

func (v Verifier) insecure() []string {
	var out []string
	for _, r := range v.SNP.InsecureSimulatedRoots {
		out = append(out, "verifier.snp.insecure_simulated_roots: "+r.Name)
	}
	if v.SNP.InsecureNoRevocation {
		out = append(out, "verifier.snp.insecure_no_revocation")
	}
	if v.Sample.InsecureEnabled {
		out = append(out, "verifier.sample.insecure_enabled")
	}
	return out
}

var rootName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (s SNP) validate(p *problems) {
	seen := map[string]bool{}
	for _, r := range s.InsecureSimulatedRoots {
		if !rootName.MatchString(r.Name) || r.Path == "" || seen[r.Name] {
			p.bad("verifier.snp.insecure_simulated_roots", "%q needs a unique name of [A-Za-z0-9_.-] and a path", r.Name)
		}
		seen[r.Name] = true
	}
	if !s.Enabled && (len(s.InsecureSimulatedRoots) > 0 || s.InsecureNoRevocation) {
		p.bad("verifier.snp", "settings are given, but enabled is false")
	}
}
