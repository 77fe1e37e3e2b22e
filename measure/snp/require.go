package snp

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Requirements are what a verifier demands of evidence beyond its being
// genuine. What is left out is not demanded here: the claims tell it, and
// policies judge. Each that is not met is a finding of its own.
type Requirements struct {
	// MinimumTCB is the oldest firmware that is accepted, by generation. A
	// generation that is missing from a map that is not empty is refused.
	MinimumTCB map[Generation]SVNs
	// NoDebug refuses guests that their host may debug (policy bit 19).
	NoDebug bool
	// NoMigration refuses guests that a migration agent may move (policy bit
	// 18, or a migration agent's report id).
	NoMigration bool
	// IDKeyDigests are the SHA-384 of the keys of which one must have signed
	// the ID block of the launch.
	IDKeyDigests [][48]byte
	// AuthorKeyDigests are those of which one must have signed that key.
	AuthorKeyDigests [][48]byte
	// ChipIDs are the chips of which one must have made the report.
	ChipIDs [][64]byte
}

// validate finds what cannot be meant.
func (q Requirements) validate() error {
	for g, s := range q.MinimumTCB {
		if _, err := ParseGeneration(string(g)); err != nil {
			return fmt.Errorf("minimum TCB: %w", err)
		}
		if s.FMC != nil && g != Turin {
			return fmt.Errorf("minimum TCB of %s: fmc exists on Turin only", g)
		}
	}
	return nil
}

// Bits of the guest policy (SEV-SNP firmware ABI, GUEST_POLICY).
const (
	policyMigrateMA = 1 << 18
	policyDebug     = 1 << 19
)

// noAgent is REPORT_ID_MA of a guest without a migration agent.
var noAgent = func() (id [32]byte) {
	for i := range id {
		id[i] = 0xff
	}
	return id
}()

// check adds what the report does not meet; the TCB is checkTCB's.
func (q Requirements) check(r *Report, t *measure.Tally) {
	if q.NoDebug && r.Policy&policyDebug != 0 {
		t.Find("the host may debug the guest", "policy_debug_allowed", "true", "false")
	}
	if q.NoMigration && r.Policy&policyMigrateMA != 0 {
		t.Find("a migration agent may move the guest", "policy_migrate_ma", "true", "false")
	}
	if q.NoMigration && r.ReportIDMA != noAgent {
		t.Find("the guest has a migration agent", "report_id_ma", hex.EncodeToString(r.ReportIDMA[:]), hex.EncodeToString(noAgent[:]))
	}
	demand(t, "the launch was not signed by an ID key that is accepted", "id_key_digest", r.IDKeyDigest, q.IDKeyDigests)
	demand(t, "the ID key was not signed by an author key that is accepted", "author_key_digest", r.AuthorKeyDigest, q.AuthorKeyDigests)
	if len(q.AuthorKeyDigests) > 0 && !r.authorKeyEnabled() {
		t.Find("the launch was not signed with an author key", "author_key_enabled", strconv.FormatBool(false), "true")
	}
	demand(t, "the chip is not one that is accepted", "chip_id", r.ChipID, q.ChipIDs)
}

func demand[T [48]byte | [64]byte](t *measure.Tally, reason, field string, seen T, accepted []T) {
	var wanted []string
	for _, a := range accepted {
		if a == seen {
			return
		}
		wanted = append(wanted, fmt.Sprintf("%x", a))
	}
	if wanted != nil {
		t.Find(reason, field, fmt.Sprintf("%x", seen), wanted...)
	}
}

// checkTCB demands the generation's minimum of a TCB that may not be newer than
// it says: the one that the key was derived for.
func (q Requirements) checkTCB(g Generation, reported SVNs, t *measure.Tally) {
	if len(q.MinimumTCB) == 0 {
		return
	}
	least, ok := q.MinimumTCB[g]
	switch {
	case !ok:
		t.Find("no TCB of this generation is accepted", "processor", string(g))
	case !least.atMost(reported):
		t.Find("the firmware is older than is accepted", "reported_tcb", reported.String(), "at least "+least.String())
	}
}
