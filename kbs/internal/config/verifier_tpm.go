package config

// TPM settings of the verifier of TPM quotes. A quote is worth what its
// attestation key (AK) is worth, and nobody is trusted by default: without
// enrolled keys and authorities nothing is accepted.
type TPM struct {
	Enabled bool `toml:"enabled"`
	// EnrolledKeys are files with public keys or their certificates in PEM, any
	// number in each: the AKs of TPMs that somebody saw, with credential
	// activation or in person. The name is that of the list.
	EnrolledKeys []NamedFile `toml:"enrolled_keys"`
	// Authorities certify AKs: a file each with their certificates and their
	// revocation lists in PEM.
	Authorities []NamedFile `toml:"authorities"`
	// InsecureSimulatedRoots are authorities of TPMs that are not real. Tokens
	// that rest on one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	// InsecureSelfDeclaredKeys accepts any AK that comes along, that is, anybody's.
	// Tokens say so, and the default policies refuse them.
	InsecureSelfDeclaredKeys bool `toml:"insecure_self_declared_keys"`
	// InsecureNoRevocation accepts certified AKs without a current revocation list.
	InsecureNoRevocation bool `toml:"insecure_no_revocation"`
}

func defaultTPM() TPM {
	return TPM{EnrolledKeys: []NamedFile{}, Authorities: []NamedFile{}, InsecureSimulatedRoots: []SimulatedRoot{}}
}

func (t TPM) insecure() []string {
	out := insecureRoots("verifier.tpm", t.InsecureSimulatedRoots)
	if t.InsecureSelfDeclaredKeys {
		out = append(out, "verifier.tpm.insecure_self_declared_keys")
	}
	if t.InsecureNoRevocation {
		out = append(out, "verifier.tpm.insecure_no_revocation")
	}
	return out
}

// trusted are all files that say whom to trust.
func (t TPM) trusted() []SimulatedRoot {
	out := t.InsecureSimulatedRoots[:len(t.InsecureSimulatedRoots):len(t.InsecureSimulatedRoots)]
	for _, list := range [][]NamedFile{t.EnrolledKeys, t.Authorities} {
		for _, f := range list {
			out = append(out, SimulatedRoot(f))
		}
	}
	return out
}

func (t TPM) files() []string { return rootFiles(t.trusted()) }

func (t TPM) validate(p *problems) {
	all := t.trusted()
	validateRoots("verifier.tpm", all, p)
	switch {
	case t.Enabled && len(all) == 0 && !t.InsecureSelfDeclaredKeys:
		p.bad("verifier.tpm", "must name enrolled_keys or authorities: nothing else vouches for a TPM's key")
	case !t.Enabled && (len(all) > 0 || len(t.insecure()) > 0):
		p.bad("verifier.tpm", "settings are given, but enabled is false")
	}
}
