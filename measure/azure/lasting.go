package azure

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// Machines of which a verifier remembers what they last said. With its claims
// an event log takes some ten times its size, so large evidence is not kept.
const (
	maxMachines    = 64
	maxLastingSize = 64 << 10 // bytes of JSON
)

// lasting is what a machine says again in every piece of evidence until it
// reboots or extends a register, with what follows from that alone. It decides
// nothing that depends on the quotes, the time or who is trusted.
type lasting struct {
	text lastingText

	pcrs      [][]byte
	hcl       *HCLReport
	vcek      []byte
	eventLog  []byte
	runtime   *RuntimeData
	registers *tpm.Explained
}

// lastingText are the members of lasting, as they came.
type lastingText struct {
	version              int
	pcrs, hcl, vcek, log string
}

func (w *wire) lasting() lastingText {
	return lastingText{w.version, string(w.quote.members["pcrs"]), string(w.members[w.hclName()]), string(w.members["vcek"]), string(w.members["cc_eventlog"])}
}

func (t lastingText) size() int { return len(t.pcrs) + len(t.hcl) + len(t.vcek) + len(t.log) }

func (l *lasting) putInto(e *Evidence) {
	e.PCRs, e.HCL, e.VCEK, e.EventLog = l.pcrs, l.hcl, l.vcek, l.eventLog
}

// read reads the evidence, and of what lasts only what this verifier does not
// remember of the machine.
func (v *Verifier) read(ev measure.Evidence) (*Evidence, *lasting, error) {
	w, err := splitEvidence(ev)
	if err != nil {
		return nil, nil, err
	}
	l, ok := v.machines.Find(w.lasting())
	if !ok {
		l = nil
	}
	e := w.evidence(l)
	if w.err == nil && l == nil {
		l = &lasting{text: w.lasting(), pcrs: e.PCRs, hcl: e.HCL, vcek: e.VCEK, eventLog: e.EventLog, registers: tpm.Explain(e.PCRs, e.EventLog)}
		l.runtime, w.err = ParseRuntimeData(e.HCL.RuntimeData)
	}
	if w.err != nil {
		return nil, nil, fmt.Errorf("%s evidence: %w", v.platform, w.err)
	}
	return e, l, nil
}

// remember keeps what lasts of evidence that was good.
func (v *Verifier) remember(l *lasting) {
	if l.text.size() <= maxLastingSize {
		v.machines.Remember(l.text, l)
	}
}
