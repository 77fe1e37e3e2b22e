package snp

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/verdicttest"
)

func TestRequirements(t *testing.T) {
	l := newLab(t, Genoa)
	id, author, chip := [48]byte{1}, [48]byte{2}, l.sim.report.ChipID
	signed := func(r *Report) { r.IDKeyDigest, r.AuthorKeyDigest, r.KeyInfo = id, author, 1 }
	_, _, usual := Genoa.processor()
	newer := usual
	newer.Microcode++
	for _, c := range []struct {
		name    string
		require Requirements
		change  func(*Report)
		want    map[measure.CheckName]string // nil passes
	}{
		{"nothing", Requirements{}, func(r *Report) { r.Policy |= policyDebug | policyMigrateMA }, nil},
		{"no debug", Requirements{NoDebug: true}, func(*Report) {}, nil},
		{"debug", Requirements{NoDebug: true}, func(r *Report) { r.Policy |= policyDebug }, map[measure.CheckName]string{CheckReport: "may debug"}},
		{"no migration", Requirements{NoMigration: true}, func(*Report) {}, nil},
		{"migration", Requirements{NoMigration: true}, func(r *Report) { r.Policy |= policyMigrateMA }, map[measure.CheckName]string{CheckReport: "may move"}},
		{"migration agent", Requirements{NoMigration: true}, func(r *Report) { r.ReportIDMA[3] = 0 }, map[measure.CheckName]string{CheckReport: "has a migration agent"}},
		{"ID key", Requirements{IDKeyDigests: [][48]byte{{9}, id}}, signed, nil},
		{"no ID key", Requirements{IDKeyDigests: [][48]byte{id}}, func(*Report) {}, map[measure.CheckName]string{CheckReport: "not signed by an ID key"}},
		{"author key", Requirements{AuthorKeyDigests: [][48]byte{author}}, signed, nil},
		{"other author key", Requirements{AuthorKeyDigests: [][48]byte{id}}, signed, map[measure.CheckName]string{CheckReport: "author key that is accepted"}},
		{"author key not enabled", Requirements{AuthorKeyDigests: [][48]byte{author}}, func(r *Report) { signed(r); r.KeyInfo = 0 }, map[measure.CheckName]string{CheckReport: "not signed with an author key"}},
		{"chip", Requirements{ChipIDs: [][64]byte{{1}, chip}}, func(*Report) {}, nil},
		{"other chip", Requirements{ChipIDs: [][64]byte{{1}}}, func(*Report) {}, map[measure.CheckName]string{CheckReport: "the chip is not one"}},
		{"masked chip", Requirements{ChipIDs: [][64]byte{chip}}, func(r *Report) { r.ChipID, r.KeyInfo = [64]byte{}, 2 }, map[measure.CheckName]string{CheckReport: "the chip is not one"}},
		{"TCB", Requirements{MinimumTCB: map[Generation]SVNs{Genoa: usual}}, func(*Report) {}, nil},
		{"old TCB", Requirements{MinimumTCB: map[Generation]SVNs{Genoa: newer}}, func(*Report) {}, map[measure.CheckName]string{measure.CheckTCB: "older than is accepted"}},
		{"TCB of others only", Requirements{MinimumTCB: map[Generation]SVNs{Milan: {}}}, func(*Report) {}, map[measure.CheckName]string{measure.CheckTCB: "no TCB of this generation"}},
		{"all at once", Requirements{NoDebug: true, NoMigration: true, IDKeyDigests: [][48]byte{id}, ChipIDs: [][64]byte{{1}}, MinimumTCB: map[Generation]SVNs{Genoa: newer}},
			func(r *Report) { r.Policy |= policyDebug | policyMigrateMA },
			map[measure.CheckName]string{CheckReport: "may debug the guest; a migration agent may move the guest; the launch", measure.CheckTCB: "older"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := l.verifier(func(cfg *VerifierConfig) { cfg.Require = c.require })
			for range 2 { // the second time with a chain that is known, if the first passed
				_, err := l.verify(v, l.evidence(c.change), l.expected())
				if c.want != nil {
					verdicttest.WantFailures(t, err, c.want)
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestTurinMinimum(t *testing.T) {
	l := newLab(t, Turin)
	_, _, usual := Turin.processor()
	fmc := *usual.FMC + 1
	newer := usual
	newer.FMC = &fmc
	for least, want := range map[*SVNs]bool{&usual: true, &newer: false, {Bootloader: 1}: true} {
		v := l.verifier(func(c *VerifierConfig) { c.Require.MinimumTCB = map[Generation]SVNs{Turin: *least} })
		if _, err := l.verify(v, l.evidence(), l.expected()); (err == nil) != want {
			t.Errorf("minimum %s: %v", least, err)
		}
	}
}

func TestRequirementsThatCannotBeMeant(t *testing.T) {
	fmc := uint8(1)
	for want, q := range map[string]Requirements{
		"not one of":     {MinimumTCB: map[Generation]SVNs{"Rome": {}}},
		"on Turin only":  {MinimumTCB: map[Generation]SVNs{Milan: {FMC: &fmc}}},
		"is negative":    {},
		"nothing at all": {},
	} {
		c := VerifierConfig{Require: q}
		if want == "is negative" {
			c.Grace = -1
		}
		_, err := NewVerifier(c)
		if want == "nothing at all" {
			if err != nil {
				t.Error(err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
