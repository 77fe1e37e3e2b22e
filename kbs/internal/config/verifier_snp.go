package config

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// SNP settings of the AMD SEV-SNP verifier.
type SNP struct {
	Enabled bool `toml:"enabled"`
	// InsecureSimulatedRoots are trusted beside AMD's roots. Tokens that rest
	// on one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	InsecureNoRevocation   bool            `toml:"insecure_no_revocation"`
	// RevocationLists are AMD's CRLs by processor generation (Milan, Genoa,
	// Turin), each the path of a file as AMD serves it.
	RevocationLists map[string]string `toml:"revocation_lists" kind:"path" file:"some"`
	// MinimumTCB is the oldest firmware that is accepted, by generation, for
	// example Milan = "bootloader=4 tee=0 snp=24 microcode=219"; on Turin also
	// fmc. A generation that is left out is refused, if any is named.
	MinimumTCB map[string]string `toml:"minimum_tcb"`
	// IDKeyDigests are the SHA-384, in hex, of keys of which one must have signed
	// the ID block of the launch; none accepts any launch.
	IDKeyDigests []string `toml:"id_key_digests"`
	// AuthorKeyDigests are those of keys of which one must have signed that key.
	AuthorKeyDigests []string `toml:"author_key_digests"`
	// InsecureDebug accepts guests that their host may read and write.
	InsecureDebug bool `toml:"insecure_debug"`
	// InsecureMigratable accepts guests that may be moved to a platform that
	// nobody judged.
	InsecureMigratable bool `toml:"insecure_migratable"`
}

// TCB is the least of each part of the firmware's version; FMC exists on Turin.
type TCB struct{ FMC, Bootloader, TEE, SNP, Microcode uint8 }

// tcbParts are the names of the parts in minimum_tcb.
func (t *TCB) parts() map[string]*uint8 {
	return map[string]*uint8{"fmc": &t.FMC, "bootloader": &t.Bootloader, "tee": &t.TEE, "snp": &t.SNP, "microcode": &t.Microcode}
}

// ParseTCB reads a value of minimum_tcb: each part once, fmc only for Turin.
func ParseTCB(generation, text string) (TCB, error) {
	var t TCB
	parts := t.parts()
	if generation != "Turin" {
		delete(parts, "fmc")
	}
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		to, ok := parts[name]
		n, err := strconv.ParseUint(value, 10, 8)
		if !ok || err != nil {
			return t, fmt.Errorf("%q is not a part of a TCB of %s with a number to 255, each once", field, generation)
		}
		*to = uint8(n)
		delete(parts, name)
	}
	if len(parts) > 0 {
		return t, fmt.Errorf("%q lacks %s", text, strings.Join(slices.Sorted(maps.Keys(parts)), ", "))
	}
	return t, nil
}

func defaultSNP() SNP {
	return SNP{Enabled: true, InsecureSimulatedRoots: []SimulatedRoot{}, RevocationLists: map[string]string{}, MinimumTCB: map[string]string{}, IDKeyDigests: []string{}, AuthorKeyDigests: []string{}}
}

func (s SNP) insecure() []string { return s.insecureIn("verifier.snp") }

func (s SNP) insecureIn(table string) []string {
	out := insecureRoots(table, s.InsecureSimulatedRoots)
	for _, w := range []struct {
		name string
		set  bool
	}{
		{"insecure_no_revocation", s.InsecureNoRevocation}, {"insecure_debug", s.InsecureDebug}, {"insecure_migratable", s.InsecureMigratable},
	} {
		if w.set {
			out = append(out, table+"."+w.name)
		}
	}
	return out
}

func (s SNP) files() []string {
	return append(slices.Sorted(maps.Values(s.RevocationLists)), rootFiles(s.InsecureSimulatedRoots)...)
}

func (s SNP) validate(p *problems) { s.validateIn("verifier.snp", p) }

func (s SNP) validateIn(table string, p *problems) {
	validateRoots(table+".insecure_simulated_roots", s.InsecureSimulatedRoots, p)
	for generation, text := range s.MinimumTCB {
		if !slices.Contains([]string{"Milan", "Genoa", "Turin"}, generation) {
			p.bad(table+".minimum_tcb", "%q is not one of Milan, Genoa, Turin", generation)
		} else if _, err := ParseTCB(generation, text); err != nil {
			p.bad(table+".minimum_tcb", "%v", err)
		}
	}
	for name, all := range map[string][]string{"id_key_digests": s.IDKeyDigests, "author_key_digests": s.AuthorKeyDigests} {
		for _, d := range all {
			if raw, err := hex.DecodeString(d); err != nil || len(raw) != 48 {
				p.bad(table+"."+name, "%q is not the hex of 48 bytes", d)
			}
		}
	}
	set := len(s.insecureIn(table)) > 0 || len(s.MinimumTCB) > 0 || len(s.IDKeyDigests) > 0 || len(s.AuthorKeyDigests) > 0
	if !s.Enabled && set {
		p.bad(table, "settings are given, but enabled is false")
	}
}
