package tpm

import (
	"encoding/hex"
	"errors"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/ima"
)

// Explained are the PCR values of evidence with what the log that came along
// makes of them. Nothing in it may be changed: verdicts share it.
type Explained struct {
	Values [][]byte
	// Check says whether the log leads to the values ([measure.CheckEventLog]).
	Check measure.Check
	// Claims are the values under the names pcr00 to pcr23, in hex.
	Claims measure.Claims
	// IMA are the claims about the files that the kernel measured (package ima), nil
	// if there is no list that leads to PCR 10: nothing but its value is known then.
	IMA measure.Claims

	events []any         // the claims about the log's events
	large  *eventlog.Log // not listed yet
}

// AddEvents adds the claims about the log's events (package eventlog), if there
// is a log that can be read. Of one above [eventlog.MaxUnproven] it does so only
// if all that was to be checked is good.
func (r *Explained) AddEvents(c measure.Claims, good bool) {
	switch {
	case r.events != nil:
		c[eventlog.ClaimEvents] = r.events
	case r.large != nil && good:
		c[eventlog.ClaimEvents] = r.large.ClaimsIn(Bank)
	}
}

// Logs that come along with values, as they came; nil for none.
type logs struct{ firmware, ima []byte }

// Explain replays a log and compares every register that it names with
// the quoted PCR. PCRs that it does not name are not explained by it, which is
// no failure: policies see their values. A nil log is none.
func Explain(values [][]byte, log []byte) *Explained { return explain(values, logs{firmware: log}) }

func explain(values [][]byte, l logs) *Explained {
	r := &Explained{Values: values, Claims: measure.Claims{}}
	for i, v := range values[:min(len(values), PCRs)] {
		r.Claims[pcrName(i)] = hex.EncodeToString(v)
	}
	var t measure.Tally
	if l.firmware != nil {
		r.replay(l.firmware, &t)
	}
	if l.ima != nil {
		r.replayIMA(l.ima, &t)
	}
	r.Check = t.Check(measure.CheckEventLog)
	if l.firmware == nil && r.Check.Outcome == measure.Passed {
		r.Check = measure.Check{Name: measure.CheckEventLog, Outcome: measure.NotApplicable, Reason: "the evidence has no event log"}
	}
	return r
}

// replayIMA looks for the part of IMA's list that the quote covers.
func (r *Explained) replayIMA(raw []byte, t *measure.Tally) {
	list, err := ima.Parse(raw)
	if err != nil {
		t.Fail(err)
		return
	}
	if len(r.Values) <= ima.PCR {
		t.Fail(errors.New("the evidence has an IMA list and no PCR 10"))
		return
	}
	through, ok := list.Through(Bank, r.Values[ima.PCR])
	if !ok {
		name := pcrName(ima.PCR)
		t.Find("the IMA list does not lead to the quoted "+name, name, hex.EncodeToString(r.Values[ima.PCR]), hex.EncodeToString(list.End(Bank)))
		return
	}
	// A register that nothing extended is one of a kernel that measures no files: a
	// policy that asks something of each of them must not find that none is wrong.
	if len(through) > 0 {
		r.IMA = through.Claims()
	}
}

func (r *Explained) replay(raw []byte, t *measure.Tally) {
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fail(err)
		return
	}
	if log.Size <= eventlog.MaxUnproven {
		r.events = log.ClaimsIn(Bank)
	} else {
		r.large = log
	}
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
