package tpm

import (
	"encoding/hex"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Explained are the PCR values of evidence with what the log that came along
// makes of them. Nothing in it may be changed: verdicts share it.
type Explained struct {
	Values [][]byte
	// Check says whether the log leads to the values ([measure.CheckEventLog]).
	Check measure.Check
	// Claims are the values under the names pcr00 to pcr23, in hex.
	Claims measure.Claims
	// Events are the claims about the log's events (package eventlog), nil if
	// there is no log that can be read.
	Events []any
}

// Explain replays a log and compares every register that it names with
// the quoted PCR. PCRs that it does not name are not explained by it, which is
// no failure: policies see their values. A nil log is none.
func Explain(values [][]byte, log []byte) *Explained {
	r := &Explained{Values: values, Claims: measure.Claims{}}
	for i, v := range values[:min(len(values), PCRs)] {
		r.Claims[pcrName(i)] = hex.EncodeToString(v)
	}
	if log == nil {
		r.Check = measure.Check{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "the evidence has no event log"}
		return r
	}
	var t measure.Tally
	r.replay(log, &t)
	r.Check = t.Check(measure.CheckEventLog)
	return r
}

func (r *Explained) replay(raw []byte, t *measure.Tally) {
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fail(err)
		return
	}
	r.Events = log.ClaimsIn(Bank)
	replayed, err := log.Replay(Bank)
	if err != nil {
		t.Fail(err)
	}
	for _, i := range slices.Sorted(maps.Keys(replayed)) {
		seen := "not in the evidence"
		if i < len(r.Values) {
			seen = hex.EncodeToString(r.Values[i])
		}
		if wanted := hex.EncodeToString(replayed[i]); seen != wanted {
			t.Find("the event log does not lead to the quoted "+pcrName(i), pcrName(i), seen, wanted)
		}
	}
}
