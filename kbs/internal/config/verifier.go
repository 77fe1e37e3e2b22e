package config

import (
	"maps"
	"regexp"
	"slices"
)

// Verifier has one table for each platform.
type Verifier struct {
	SNP       SNP       `toml:"snp"`
	TDX       TDX       `toml:"tdx"`
	SGX       SGX       `toml:"sgx"`
	AzSNPvTPM AzSNPvTPM `toml:"az-snp-vtpm"`
	AzTDXvTPM AzTDXvTPM `toml:"az-tdx-vtpm"`
	TPM       TPM       `toml:"tpm"`
	CCA       CCA       `toml:"cca"`
	NVIDIA    NVIDIA    `toml:"nvidia"`
	Sample    Sample    `toml:"sample"`
}

// platform is one of the tables. Each but the small ones has a file of its own,
// verifier_<platform>.go.
type platform interface {
	validate(p *problems)
	insecure() []string
	// files are those that a running broker reads again when they change.
	files() []string
}

func (v Verifier) platforms() []platform {
	return []platform{
		v.SNP,
		v.TDX,
		v.SGX,
		v.AzSNPvTPM,
		v.AzTDXvTPM,
		v.TPM,
		v.CCA,
		v.NVIDIA,
		v.Sample,
	}
}

// Files lists what the verifiers read: roots, revocation lists and whatever
// else a platform is judged by.
func (v Verifier) Files() []string {
	var out []string
	for _, p := range v.platforms() {
		out = append(out, p.files()...)
	}
	return out
}

func (v Verifier) validate(p *problems) {
	for _, one := range v.platforms() {
		one.validate(p)
	}
}

func (v Verifier) insecure() []string {
	var out []string
	for _, p := range v.platforms() {
		out = append(out, p.insecure()...)
	}
	return out
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

// NamedFile names a file that says whom to trust. The name appears in tokens.
type NamedFile struct {
	Name string `toml:"name"`
	Path string `toml:"path" kind:"path"`
}

func defaultVerifier() Verifier {
	return Verifier{
		SNP: defaultSNP(), AzSNPvTPM: defaultAzSNP(),
		TDX: TDX{Intel: defaultIntel()}, AzTDXvTPM: AzTDXvTPM{TDX{Intel: defaultIntel()}}, SGX: SGX{Intel: defaultIntel()},
		TPM: defaultTPM(), CCA: defaultCCA(), NVIDIA: defaultNVIDIA(),
	}
}

func (s Sample) insecure() []string {
	if s.InsecureEnabled {
		return []string{"verifier.sample.insecure_enabled"}
	}
	return nil
}

func (Sample) validate(*problems) {}

func (Sample) files() []string { return nil }

func defaultSNP() SNP {
	return SNP{Enabled: true, InsecureSimulatedRoots: []SimulatedRoot{}, RevocationLists: map[string]string{}}
}

func (s SNP) insecure() []string { return s.insecureIn("verifier.snp") }

func (s SNP) insecureIn(table string) []string {
	out := insecureRoots(table, s.InsecureSimulatedRoots)
	if s.InsecureNoRevocation {
		out = append(out, table+".insecure_no_revocation")
	}
	return out
}

func (s SNP) files() []string {
	return append(slices.Sorted(maps.Values(s.RevocationLists)), rootFiles(s.InsecureSimulatedRoots)...)
}

func insecureRoots(table string, roots []SimulatedRoot) []string {
	var out []string
	for _, r := range roots {
		out = append(out, table+".insecure_simulated_roots: "+r.Name)
	}
	return out
}

func rootFiles(roots []SimulatedRoot) []string {
	var out []string
	for _, r := range roots {
		out = append(out, r.Path)
	}
	return out
}

var rootName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (s SNP) validate(p *problems) { s.validateIn("verifier.snp", p) }

func (s SNP) validateIn(table string, p *problems) {
	validateRoots(table+".insecure_simulated_roots", s.InsecureSimulatedRoots, p)
	if !s.Enabled && (len(s.InsecureSimulatedRoots) > 0 || s.InsecureNoRevocation) {
		p.bad(table, "settings are given, but enabled is false")
	}
}

// validateRoots checks named files: the names end up in tokens.
func validateRoots(key string, roots []SimulatedRoot, p *problems) {
	seen := map[string]bool{}
	for _, r := range roots {
		if !rootName.MatchString(r.Name) || r.Path == "" || seen[r.Name] {
			p.bad(key, "%q needs a unique name of [A-Za-z0-9_.-] and a path", r.Name)
		}
		seen[r.Name] = true
	}
}
