package config

// AzSNPvTPM settings of the verifier of Azure's confidential VMs on AMD
// SEV-SNP. They say by what the report of the hardware is judged, which vouches
// for the vTPM: the same settings as those of verifier.snp, for these guests
// alone.
type AzSNPvTPM struct {
	SNP
}

// AzTDXvTPM settings of the verifier of Azure's confidential VMs on Intel TDX:
// the same settings as those of verifier.tdx, for these guests alone.
type AzTDXvTPM struct {
	TDX
}

const (
	tableAzSNP = "verifier.az-snp-vtpm"
	tableAzTDX = "verifier.az-tdx-vtpm"
)

func defaultAzSNP() AzSNPvTPM {
	s := defaultSNP()
	s.Enabled = false
	return AzSNPvTPM{s}
}

func (a AzSNPvTPM) insecure() []string { return a.insecureIn(tableAzSNP) }

func (a AzSNPvTPM) validate(p *problems) { a.validateIn(tableAzSNP, p) }

func (a AzTDXvTPM) insecure() []string { return a.insecureIn(tableAzTDX) }

func (a AzTDXvTPM) validate(p *problems) { a.validateIn(tableAzTDX, p) }
