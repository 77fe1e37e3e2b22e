package predict

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// events explains registers by the event log: the boot plan that fits best is
// laid beside it, register by register.
func (x *explainer) events(differ []string) {
	var best []Difference
	found := false
	explained := map[string]bool{}
	for _, plan := range x.doc.Boots {
		if plan.Platform != x.seen.Platform {
			continue
		}
		got := x.comparePlan(plan, differ)
		if !found || len(got) < len(best) {
			best, found = got, true
		}
	}
	for _, d := range best {
		explained[d.Register] = true
	}
	x.out.Differences = append(x.out.Differences, best...)
	// What no log explains: MRTD, which no event leads to.
	rest := slices.DeleteFunc(slices.Clone(differ), func(name string) bool {
		register, _, _ := strings.Cut(name, "/")
		return explained[register]
	})
	x.unexplained(rest, "")
}

// comparePlan compares the events of the registers that differ.
func (x *explainer) comparePlan(plan BootPlan, differ []string) []Difference {
	var out []Difference
	done := map[string]bool{}
	for _, name := range differ {
		register, bank, _ := strings.Cut(name, "/")
		if x.seen.Platform == TDX {
			bank = bankName(eventlog.SHA384)
		}
		if done[register] {
			continue // in another bank
		}
		done[register] = true
		var predicted []PlannedEvent
		for _, e := range plan.Events {
			if e.Register == register {
				predicted = append(predicted, e)
			}
		}
		out = append(out, x.compareEvents(register, bank, predicted, x.seenEvents(register))...)
	}
	return out
}

func (x *explainer) seenEvents(register string) []eventlog.Event {
	var out []eventlog.Event
	for _, e := range x.seen.Log.Events {
		if e.Type == eventlog.NoAction {
			continue
		}
		name, _, _ := strings.Cut(x.seen.register(e.Index, eventlog.SHA256), "/")
		if name == register {
			out = append(out, e)
		}
	}
	return out
}

// Costs by which events are laid side by side.
const (
	costSame    = 0
	costChanged = 2 // the same kind of event, another digest
	costOneSide = 3 // happened and was not predicted, or the other way round
	costOther   = 7 // more than one of each
	maxAligned  = 4096
)

func alike(p PlannedEvent, s eventlog.Event, bank string) int {
	digest, ok := p.Digests[bank]
	switch {
	case ok && digest == hexDigest(s, bank):
		return costSame
	case p.Type != uint32(s.Type):
		return costOther
	case !ok:
		return costSame // nothing was predicted of its digest
	}
	return costChanged
}

func hexDigest(e eventlog.Event, bank string) string {
	for alg, sum := range e.Digests {
		if bankName(alg) == bank {
			return hex.EncodeToString(sum)
		}
	}
	return ""
}

// compareEvents lays the events of a register side by side with the least cost
// and reports what does not fit.
func (x *explainer) compareEvents(register, bank string, p []PlannedEvent, s []eventlog.Event) []Difference {
	if len(s) > maxAligned {
		s = s[:maxAligned]
	}
	cost := make([][]int, len(p)+1)
	for i := range cost {
		cost[i] = make([]int, len(s)+1)
	}
	for i := len(p); i >= 0; i-- {
		for j := len(s); j >= 0; j-- {
			switch {
			case i == len(p):
				cost[i][j] = (len(s) - j) * costOneSide
			case j == len(s):
				cost[i][j] = (len(p) - i) * costOneSide
			default:
				cost[i][j] = min(cost[i+1][j+1]+alike(p[i], s[j], bank), cost[i+1][j]+costOneSide, cost[i][j+1]+costOneSide)
			}
		}
	}
	var out []Difference
	for i, j := 0, 0; i < len(p) || j < len(s); {
		switch {
		case i < len(p) && j < len(s) && cost[i][j] == cost[i+1][j+1]+alike(p[i], s[j], bank):
			if alike(p[i], s[j], bank) != costSame {
				out = append(out, x.changed(register, bank, p[i], s[j]))
			}
			i, j = i+1, j+1
		case i < len(p) && cost[i][j] == cost[i+1][j]+costOneSide:
			out = append(out, Difference{
				Register: register, Inputs: inputsOf(p[i]), Predicted: digestOf(p[i], bank),
				Text: fmt.Sprintf("%s: %q (%s) was predicted and did not happen", register, p[i].Name, eventlog.EventType(p[i].Type)),
			})
			i++
		default:
			out = append(out, Difference{
				Register: register, Inputs: []string{}, Seen: hexDigest(s[j], bank),
				Text: fmt.Sprintf("%s: %s happened and was not predicted", register, s[j].Describe()),
			})
			j++
		}
	}
	return out
}

// inputsOf is empty for an event that no input leads to.
func inputsOf(p PlannedEvent) []string {
	if p.Input == string(boot.Fixed) {
		return []string{}
	}
	return []string{p.Input}
}

func digestOf(p PlannedEvent, bank string) []string {
	if d, ok := p.Digests[bank]; ok {
		return []string{d}
	}
	return nil
}
