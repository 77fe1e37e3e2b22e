package broker

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

func TestSNPRequirements(t *testing.T) {
	q, err := snpRequirements(config.SNP{
		MinimumTCB: map[string]string{
			"Milan": "bootloader=4 tee=1 snp=24 microcode=219",
			"Turin": "fmc=2 bootloader=4 tee=1 snp=24 microcode=219",
		},
		IDKeyDigests: []string{strings.Repeat("ab", 48)}, InsecureMigratable: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !q.NoDebug || q.NoMigration {
		t.Errorf("debug is refused: %t, migration: %t; want what the configuration says", q.NoDebug, q.NoMigration)
	}
	for g, want := range map[snp.Generation]string{
		snp.Milan: "bootloader 4, tee 1, snp 24, microcode 219", snp.Turin: "fmc 2, bootloader 4, tee 1, snp 24, microcode 219",
	} {
		if got := q.MinimumTCB[g].String(); got != want {
			t.Errorf("%s: %s, want %s", g, got, want)
		}
	}
	if len(q.IDKeyDigests) != 1 || q.IDKeyDigests[0][47] != 0xab || q.AuthorKeyDigests != nil {
		t.Errorf("digests %x and %x", q.IDKeyDigests, q.AuthorKeyDigests)
	}
	if _, err := snp.NewVerifier(snp.VerifierConfig{Require: q}); err != nil {
		t.Error(err)
	}
}
