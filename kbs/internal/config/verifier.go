package config

import (
	"regexp"
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

// SimulatedRoot names a root bundle (PEM) made by a simulated vendor.
type SimulatedRoot struct {
	Name string `toml:"name"`
	Path string `toml:"path" kind:"path" file:"some"`
}

// NamedFile names a file that says whom to trust. The name appears in tokens.
type NamedFile struct {
	Name string `toml:"name"`
	Path string `toml:"path" kind:"path" file:"some"`
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
