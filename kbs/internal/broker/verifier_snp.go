package broker

import (
	"encoding/hex"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

func openSNP(v config.Verifier, t tools) ([]measure.Verifier, error) {
	if !v.SNP.Enabled {
		return nil, nil
	}
	return only(snpVerifier(v.SNP, t))
}

func snpVerifier(c config.SNP, t tools) (*snp.Verifier, error) {
	vc := snp.VerifierConfig{
		UnsafeNoRevocation: c.InsecureNoRevocation, Now: t.now, Grace: t.grace, RevocationLists: map[snp.Generation][]byte{},
	}
	if t.published != nil {
		vc.Source = t.published
	}
	for name, path := range c.RevocationLists {
		g, err := snp.ParseGeneration(name)
		if err != nil {
			return nil, fmt.Errorf("revocation_lists: %w", err)
		}
		if vc.RevocationLists[g], err = readFile(path); err != nil {
			return nil, fmt.Errorf("revocation_lists: %w", err)
		}
	}
	err := readRoots(c.InsecureSimulatedRoots, func(name string, bundle []byte) {
		vc.UnsafeSimulatedRoots = append(vc.UnsafeSimulatedRoots, snp.SimulatedRoot{Name: name, Bundle: bundle})
	})
	if err != nil {
		return nil, err
	}
	if vc.Require, err = snpRequirements(c); err != nil {
		return nil, err
	}
	return snp.NewVerifier(vc)
}

// snpRequirements is what the configuration demands beyond genuine evidence.
func snpRequirements(c config.SNP) (snp.Requirements, error) {
	q := snp.Requirements{NoDebug: !c.InsecureDebug, NoMigration: !c.InsecureMigratable, MinimumTCB: map[snp.Generation]snp.SVNs{}}
	for name, text := range c.MinimumTCB {
		t, err := config.ParseTCB(name, text)
		if err != nil {
			return q, fmt.Errorf("minimum_tcb: %w", err)
		}
		least := snp.SVNs{Bootloader: t.Bootloader, TEE: t.TEE, SNP: t.SNP, Microcode: t.Microcode}
		if g := snp.Generation(name); g == snp.Turin {
			least.FMC = &t.FMC
		}
		q.MinimumTCB[snp.Generation(name)] = least
	}
	var err error
	if q.IDKeyDigests, err = digests(c.IDKeyDigests); err != nil {
		return q, fmt.Errorf("id_key_digests: %w", err)
	}
	if q.AuthorKeyDigests, err = digests(c.AuthorKeyDigests); err != nil {
		return q, fmt.Errorf("author_key_digests: %w", err)
	}
	return q, nil
}

func digests(texts []string) ([][48]byte, error) {
	var out [][48]byte
	for _, text := range texts {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != 48 {
			return nil, fmt.Errorf("%q is not the hex of 48 bytes", text)
		}
		out = append(out, [48]byte(raw))
	}
	return out, nil
}
