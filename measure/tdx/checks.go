package tdx

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// checkAttributes refuses TDs that others than the guest can look into, now or
// after a migration.
func (v *Verifier) checkAttributes(r *Report) measure.Check {
	var t measure.Tally
	var waived []string
	refuse := func(unsafe bool, name, reason string, bits Attributes) {
		if unsafe {
			waived = append(waived, reason+"; waived by configuration ("+name+")")
			return
		}
		t.Find(reason, "td_attributes", fmt.Sprintf("%016x", uint64(r.Attributes)), fmt.Sprintf("%016x", uint64(r.Attributes&^bits)))
	}
	if r.Attributes&attrUntrusted != 0 {
		refuse(v.debug, "UnsafeDebug", "this is a debug TD: its host may read and write its memory", attrUntrusted)
	}
	if r.Attributes&AttrMigratable != 0 {
		refuse(v.migratable, "UnsafeMigratable", "this TD may be migrated to another platform", AttrMigratable)
	}
	c := t.Check(CheckAttributes)
	if c.Outcome == measure.Passed && len(waived) > 0 {
		c.Outcome, c.Reason = measure.Waived, strings.Join(waived, "; ")
	}
	return c
}

// checkEventLog replays a log into the run-time registers (kbs-protocol 17).
// The log is nil if it cannot be parsed.
func checkEventLog(raw []byte, r *Report) (*eventlog.Log, measure.Check) {
	if raw == nil {
		return nil, measure.Check{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "the evidence has no event log"}
	}
	var t measure.Tally
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fail(err)
		return nil, t.Check(measure.CheckEventLog)
	}
	registers, err := log.Replay(eventlog.SHA384)
	if err != nil {
		t.Fail(err)
		return log, t.Check(measure.CheckEventLog)
	}
	for n, quoted := range r.RTMR {
		replayed := registers[n+1]
		delete(registers, n+1)
		if replayed == nil {
			replayed = make([]byte, len(quoted))
		}
		if [48]byte(replayed) != quoted {
			t.Find(fmt.Sprintf("the event log does not lead to RTMR%d", n), fmt.Sprintf("rtmr_%d", n), hex.EncodeToString(quoted[:]), hex.EncodeToString(replayed))
		}
	}
	for _, index := range slices.Sorted(maps.Keys(registers)) {
		t.Fail(fmt.Errorf("the event log extends register %d, and a TD has only 1 to 4", index))
	}
	if log.Header == nil {
		t.Fail(errors.New("the event log is of the TPM 1.2 form"))
	}
	return log, t.Check(measure.CheckEventLog)
}
