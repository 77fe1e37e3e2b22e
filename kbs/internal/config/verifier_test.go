package config

import (
	"slices"
	"strings"
	"testing"
)

// Each platform's table: what it must say, and what of it is insecure.
func TestVerifiers(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string // want is part of the error; none is good
		insecure   []string
		files      int
	}{
		"tpm, nobody is trusted": {text: "[verifier.tpm]\nenabled = true\n", want: "must name enrolled_keys or authorities"},
		"tpm, settings without":  {text: "[verifier.tpm]\ninsecure_no_revocation = true\n", want: "enabled is false"},
		"tpm, keys without":      {text: "[verifier.tpm]\nenrolled_keys = [{name = 'a', path = '/a'}]\n", want: "enabled is false"},
		"tpm, one name for two":  {text: "[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = 'a', path = '/a'}]\nauthorities = [{name = 'a', path = '/b'}]\n", want: "unique name"},
		"tpm, enrolled keys":     {text: "[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = 'a', path = '/a'}]\nauthorities = [{name = 'b', path = '/b'}]\n", files: 2},
		"tpm, all that is insecure": {
			text:     "[verifier.tpm]\nenabled = true\ninsecure_self_declared_keys = true\ninsecure_no_revocation = true\ninsecure_simulated_roots = [{name = 'a', path = '/a'}]\n",
			insecure: []string{"verifier.tpm.insecure_simulated_roots: a", "verifier.tpm.insecure_self_declared_keys", "verifier.tpm.insecure_no_revocation"}, files: 1,
		},
		"snp, what is demanded": {
			text: "[verifier.snp]\nminimum_tcb = {Milan = 'bootloader=4 tee=0 snp=24 microcode=219', Turin = 'fmc=1 bootloader=4 tee=0 snp=24 microcode=219'}\n" +
				"id_key_digests = ['" + strings.Repeat("ab", 48) + "']\nauthor_key_digests = ['" + strings.Repeat("cd", 48) + "']\n",
		},
		"snp, a TCB without a part":   {text: "[verifier.snp]\nminimum_tcb = {Milan = 'bootloader=4 tee=0 snp=24'}\n", want: "lacks microcode"},
		"snp, a TCB with a part more": {text: "[verifier.snp]\nminimum_tcb = {Milan = 'fmc=1 bootloader=4 tee=0 snp=24 microcode=1'}\n", want: `"fmc=1" is not a part`},
		"snp, a part twice":           {text: "[verifier.snp]\nminimum_tcb = {Milan = 'tee=0 tee=0 bootloader=1 snp=24 microcode=1'}\n", want: "each once"},
		"snp, a part too large":       {text: "[verifier.snp]\nminimum_tcb = {Milan = 'tee=256 bootloader=1 snp=24 microcode=1'}\n", want: "to 255"},
		"snp, no such generation":     {text: "[verifier.snp]\nminimum_tcb = {Naples = ''}\n", want: "Milan, Genoa, Turin"},
		"snp, no digest":              {text: "[verifier.snp]\nid_key_digests = ['ab']\n", want: "48 bytes"},
		"snp, demands without it":     {text: "[verifier.snp]\nenabled = false\nauthor_key_digests = ['" + strings.Repeat("cd", 48) + "']\n", want: "enabled is false"},
		"snp, all that is insecure": {
			text:     "[verifier.snp]\ninsecure_no_revocation = true\ninsecure_debug = true\ninsecure_migratable = true\n",
			insecure: []string{"verifier.snp.insecure_no_revocation", "verifier.snp.insecure_debug", "verifier.snp.insecure_migratable"},
		},
		"az-snp-vtpm":                   {text: "[verifier.az-snp-vtpm]\nenabled = true\nrevocation_lists = {Milan = '/milan'}\n", files: 1},
		"az-snp-vtpm, settings without": {text: "[verifier.az-snp-vtpm]\ninsecure_no_revocation = true\n", want: "verifier.az-snp-vtpm: settings are given"},
		"az-tdx-vtpm, settings without": {text: "[verifier.az-tdx-vtpm]\ninsecure_migratable = true\n", want: "verifier.az-tdx-vtpm: settings are given"},
		"az-tdx-vtpm, insecure": {
			text:     "[verifier.az-tdx-vtpm]\nenabled = true\ninsecure_debug = true\ninsecure_simulated_roots = [{name = 'a', path = '/a'}]\n",
			insecure: []string{"verifier.az-tdx-vtpm.insecure_simulated_roots: a", "verifier.az-tdx-vtpm.insecure_debug"}, files: 1,
		},
		"az-snp-vtpm, insecure": {
			text:     "[verifier.az-snp-vtpm]\nenabled = true\ninsecure_no_revocation = true\ninsecure_simulated_roots = [{name = 'a', path = '/a'}]\n",
			insecure: []string{"verifier.az-snp-vtpm.insecure_simulated_roots: a", "verifier.az-snp-vtpm.insecure_no_revocation"}, files: 1,
		},
		"cca, nobody is trusted": {text: "[verifier.cca]\nenabled = true\n", want: "must name a trust store"},
		"cca, settings without":  {text: "[verifier.cca]\ninsecure_any_lifecycle = true\n", want: "verifier.cca: settings are given"},
		"cca, a store without":   {text: "[verifier.cca]\ntrust_stores = [{name = 'a', path = '/a'}]\n", want: "enabled is false"},
		"cca, one name for two":  {text: "[verifier.cca]\nenabled = true\ntrust_stores = [{name = 'a', path = '/a'}]\ninsecure_simulated_roots = [{name = 'a', path = '/b'}]\n", want: "unique name"},
		"cca, a store":           {text: "[verifier.cca]\nenabled = true\ntrust_stores = [{name = 'a', path = '/a'}]\n", files: 1},
		"cca, all that is insecure": {
			text:     "[verifier.cca]\nenabled = true\ninsecure_any_lifecycle = true\ninsecure_simulated_roots = [{name = 'a', path = '/a'}]\n",
			insecure: []string{"verifier.cca.insecure_simulated_roots: a", "verifier.cca.insecure_any_lifecycle"}, files: 1,
		},
		"nvidia, nothing is decided":   {text: "[verifier.nvidia]\nenabled = true\n", want: "must say how many GPUs"},
		"nvidia, nothing is compared":  {text: "[verifier.nvidia]\nenabled = true\ndevices = [8]\n", want: "must name reference measurements"},
		"nvidia, revocation":           {text: "[verifier.nvidia]\nenabled = true\ndevices = [8]\nmanifests = ['/a']\n", want: "insecure_no_revocation"},
		"nvidia, too many":             {text: "[verifier.nvidia]\nenabled = true\ndevices = [33]\nmanifests = ['/a']\ninsecure_no_revocation = true\n", want: "verifier.nvidia.devices"},
		"nvidia, none":                 {text: "[verifier.nvidia]\nenabled = true\ndevices = [0]\nmanifests = ['/a']\ninsecure_no_revocation = true\n", want: "verifier.nvidia.devices"},
		"nvidia, settings without":     {text: "[verifier.nvidia]\ndevices = [1]\n", want: "enabled is false"},
		"nvidia, roots without a name": {text: "[verifier.nvidia]\nenabled = true\ninsecure_simulated_roots = [{path = '/a'}]\n", want: "unique name"},
		"nvidia, as secure as it can be": {
			text:     "[verifier.nvidia]\nenabled = true\ndevices = [1, 8]\nmanifests = ['/a', '/b']\ninsecure_no_revocation = true\n",
			insecure: []string{"verifier.nvidia.insecure_no_revocation"}, files: 2,
		},
		"nvidia, all that is insecure": {
			text: "[verifier.nvidia]\nenabled = true\ninsecure_no_revocation = true\ninsecure_no_manifest = true\ninsecure_any_devices = true\n" +
				"insecure_simulated_roots = [{name = 'a', path = '/a'}]\n",
			insecure: []string{
				"verifier.nvidia.insecure_simulated_roots: a", "verifier.nvidia.insecure_no_revocation",
				"verifier.nvidia.insecure_no_manifest", "verifier.nvidia.insecure_any_devices",
			}, files: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default(env(nil))
			err := Parse([]byte(c.text), &cfg)
			if err == nil {
				err = cfg.Validate()
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil || !slices.Equal(cfg.Insecure(), c.insecure) || len(cfg.Verifier.Files()) != c.files {
				t.Errorf("%v, insecure %q, files %q", err, cfg.Insecure(), cfg.Verifier.Files())
			}
		})
	}
}

// A hyphen in a key is no hindrance to its variable.
func TestVariableOfAHyphen(t *testing.T) {
	c, err := Load("", env(map[string]string{"KBS_VERIFIER_AZ_SNP_VTPM_ENABLED": "true"}))
	if err != nil || !c.Verifier.AzSNPvTPM.Enabled {
		t.Errorf("%v, %+v", err, c.Verifier.AzSNPvTPM)
	}
}
