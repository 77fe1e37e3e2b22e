package azure

import (
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/rsapub"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
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
	// prepared is the AK of a machine that is remembered; nil of another, and
	// where it cannot be.
	prepared *rsapub.Key
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
func (v *Verifier) read(ev measure.Evidence) (e *Evidence, l *lasting, remembered bool, err error) {
	w, err := splitEvidence(ev)
	if err != nil {
		return nil, nil, false, err
	}
	l, remembered = v.machines.Find(w.lasting())
	e = w.evidence(l)
	if w.err == nil && !remembered {
		l = &lasting{text: w.lasting(), pcrs: e.PCRs, hcl: e.HCL, vcek: e.VCEK, eventLog: e.EventLog, registers: tpm.Explain(e.PCRs, e.EventLog)}
		l.runtime, w.err = ParseRuntimeData(e.HCL.RuntimeData)
	}
	if w.err != nil {
		return nil, nil, false, fmt.Errorf("%s evidence: %w", v.platform, w.err)
	}
	return e, l, remembered, nil
}

// remember keeps what lasts of evidence that was good.
func (v *Verifier) remember(l *lasting) {
	if l.text.size() <= known.MaxEvidenceSize {
		l.prepared, _ = rsapub.New(l.runtime.AK) // or none: then it is as before
		v.machines.Remember(l.text, l)
	}
}
