package config

// NVIDIA settings of the verifier of GPUs.
type NVIDIA struct {
	Enabled bool `toml:"enabled"`
	// Devices are the numbers of GPUs that a guest may have, for example [1, 8].
	// A GPU that fails to answer would otherwise just not be there.
	Devices []int `toml:"devices"`
	// Manifests are files with reference measurements, one for each release of
	// driver and VBIOS that is good: as NVIDIA publishes them, in XML, or in JSON.
	// Signatures in them are not checked: whoever names a file vouches for it.
	Manifests []string `toml:"manifests" kind:"path" file:"some"`
	// InsecureSimulatedRoots are trusted beside NVIDIA's root. Tokens that rest on
	// one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	// InsecureNoRevocation accepts certificates that may have been revoked. NVIDIA
	// answers that by OCSP alone, which is not built: without this nothing is
	// accepted.
	InsecureNoRevocation bool `toml:"insecure_no_revocation"`
	// InsecureNoManifest accepts releases that no manifest is given for. Policies
	// see which.
	InsecureNoManifest bool `toml:"insecure_no_manifest"`
	// InsecureAnyDevices accepts any number of GPUs.
	InsecureAnyDevices bool `toml:"insecure_any_devices"`
}

func defaultNVIDIA() NVIDIA {
	return NVIDIA{Devices: []int{}, Manifests: []string{}, InsecureSimulatedRoots: []SimulatedRoot{}}
}

func (n NVIDIA) insecure() []string {
	out := insecureRoots("verifier.nvidia", n.InsecureSimulatedRoots)
	for _, s := range []struct {
		name string
		set  bool
	}{
		{"insecure_no_revocation", n.InsecureNoRevocation}, {"insecure_no_manifest", n.InsecureNoManifest}, {"insecure_any_devices", n.InsecureAnyDevices},
	} {
		if s.set {
			out = append(out, "verifier.nvidia."+s.name)
		}
	}
	return out
}

func (n NVIDIA) files() []string {
	return append(rootFiles(n.InsecureSimulatedRoots), n.Manifests...)
}

func (n NVIDIA) validate(p *problems) {
	validateRoots("verifier.nvidia.insecure_simulated_roots", n.InsecureSimulatedRoots, p)
	for _, d := range n.Devices {
		p.between("verifier.nvidia.devices", d, 1, 32)
	}
	set := len(n.insecure()) > 0 || len(n.Manifests) > 0 || len(n.Devices) > 0
	switch {
	case !n.Enabled && set:
		p.bad("verifier.nvidia", "settings are given, but enabled is false")
	case n.Enabled && len(n.Devices) == 0 && !n.InsecureAnyDevices:
		p.bad("verifier.nvidia.devices", "must say how many GPUs a guest may have, or insecure_any_devices must be set")
	case n.Enabled && len(n.Manifests) == 0 && !n.InsecureNoManifest:
		p.bad("verifier.nvidia.manifests", "must name reference measurements, or insecure_no_manifest must be set")
	case n.Enabled && !n.InsecureNoRevocation:
		p.bad("verifier.nvidia.insecure_no_revocation", "must be set: nobody asks NVIDIA about revocation here, and unasked nothing would be accepted")
	}
}
