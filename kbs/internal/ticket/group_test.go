package ticket

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func denial(guest int, measurement, policy string) api.Explanation {
	return api.Explanation{
		Code: "policy_denied", Stage: "release", Platform: "snp", Policy: policy, Rule: "executables", Line: 7,
		Subject: fmt.Sprintf("guest:snp/%d", guest), Object: fmt.Sprintf("resource/a/b/%d", guest), Cause: fmt.Sprintf("cause %d", guest),
		Findings: []api.Finding{{Claim: "measurement", Seen: measurement}},
	}
}

// Many guests that fail for one reason are one group.
func TestRefusalsAreGrouped(t *testing.T) {
	b, _ := open(t)
	record := func(e api.Explanation) fault.Ticket {
		t.Helper()
		ticket, err := b.Record(t.Context(), e, api.AuditEntry{})
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	var last fault.Ticket
	for i := range 300 {
		last = record(denial(i, "2f19", fmt.Sprintf("attestation/default_cpu@%d", 1+i/200)))
	}
	record(denial(1, "77aa", "attestation/default_cpu@1"))
	// A stranger cannot make groups by making things up.
	for i := range 20 {
		e := denial(i, fmt.Sprint("invented ", i), "")
		e.Code = "evidence_invalid"
		record(e)
	}
	all, err := b.Groups(t.Context(), 100, false)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d groups, %v", len(all), err)
	}
	id := GroupOf(denial(0, "2f19", "attestation/default_cpu@9"))
	g, err := b.Group(t.Context(), id)
	if err != nil || g.Count != 300 || len(g.Tickets) != maxSamples || g.Tickets[0] != string(last) || g.Policy != "attestation/default_cpu@2" {
		t.Errorf("%+v, %v", g, err)
	}
	if e, err := b.Explain(t.Context(), last); err != nil || e.Group != id {
		t.Errorf("the ticket is of group %s, %v", e.Group, err)
	}
	if few, err := b.Groups(t.Context(), 1, false); err != nil || len(few) != 1 {
		t.Errorf("%d of one, %v", len(few), err)
	}
	for _, unknown := range []string{"", "x", "\x00"} {
		if _, err := b.Group(t.Context(), unknown); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v", unknown, err)
		}
	}
}

// A ticket can be opened for its time, and is then swept with its group.
func TestTicketsEnd(t *testing.T) {
	b, log := open(t)
	now := clock
	b.now = func() time.Time { return now }
	ticket, err := b.Record(t.Context(), denial(0, "2f19", "p@1"), api.AuditEntry{})
	if err != nil {
		t.Fatal(err)
	}
	now = clock.Add(time.Hour - time.Second)
	if _, err := b.Explain(t.Context(), ticket); err != nil {
		t.Errorf("within its time: %v", err)
	}
	now = clock.Add(time.Hour)
	if _, err := b.Explain(t.Context(), ticket); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after its time: %v", err)
	}
	if all, err := b.Groups(t.Context(), 10, false); err != nil || len(all) != 0 {
		t.Errorf("groups after their time: %+v, %v", all, err)
	}
	if n, err := store.Sweep(t.Context(), b.st, now.Add(time.Second)); err != nil || n != 3 {
		t.Errorf("%d records were swept, %v", n, err)
	}
	if all, err := b.List(t.Context(), 10); err != nil || len(all) != 0 {
		t.Errorf("tickets after the sweep: %+v, %v", all, err)
	}
	if n, err := log.Size(t.Context()); n != 1 || err != nil {
		t.Errorf("the log has %d entries, %v", n, err)
	}
}
