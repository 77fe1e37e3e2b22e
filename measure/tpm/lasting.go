package tpm

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/known"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/rsapub"
)

// lasting is what a machine says again in every piece of evidence until it
// reboots or extends a register, with what follows from that alone. It decides
// nothing that depends on the quote, the time or who is trusted.
type lasting struct {
	pcrs         [][]byte
	akPublic     []byte
	certificates [][]byte
	eventLog     []byte
	imaList      []byte

	key     crypto.PublicKey
	keyErr  error
	spki    string // the key as all spell it, empty if it is malformed
	chainID known.Key
	// prepared is the key of a machine that is remembered; nil of another, and
	// where it cannot be.
	prepared  *rsapub.Key
	registers *Explained
	// claims are those of the evidence that this was made of. Those about its
	// quote are replaced in a copy, which then need not grow.
	claims measure.Claims
}

// lastingText are the members of lasting, as they came.
type lastingText struct{ pcrs, key, chain, log, ima string }

func (m *members) lasting() lastingText {
	return lastingText{string(m.pcrs), string(m.key), string(m.chain), string(m.log), string(m.ima)}
}

// among finds the machine.
func (m *members) among(known map[lastingText]*lasting) (*lasting, bool) {
	l, ok := known[lastingText{string(m.pcrs), string(m.key), string(m.chain), string(m.log), string(m.ima)}]
	return l, ok
}

func (m *members) lastingSize() int {
	return len(m.pcrs) + len(m.key) + len(m.chain) + len(m.log) + len(m.ima)
}

// newLasting draws the conclusions.
func newLasting(e *Evidence) *lasting {
	l := &lasting{pcrs: e.PCRs, akPublic: e.AKPublic, certificates: e.AKCertificates, eventLog: e.EventLog, imaList: e.IMAList}
	if l.key, l.keyErr = e.key(); l.keyErr == nil {
		if der, err := x509.MarshalPKIXPublicKey(l.key); err == nil {
			l.spki = string(der)
		}
	}
	l.chainID = known.Of(slices.Concat(e.AKCertificates...)) // DER says where it ends
	l.registers = explain(e.PCRs, logs{e.EventLog, e.IMAList})
	l.claims = maps.Clone(l.registers.Claims)
	l.claims["ak_public"] = base64.StdEncoding.EncodeToString(e.AKPublic)
	l.registers.AddEvents(l.claims, false)
	if l.registers.IMA != nil {
		l.claims[ClaimIMA] = l.registers.IMA
	}
	e.addClaims(l.claims)
	return l
}

// prepare makes ready what is needed for every further quote. The first was
// verified by the standard library.
func (l *lasting) prepare() {
	if key, ok := l.key.(*rsa.PublicKey); ok {
		l.prepared, _ = rsapub.New(key) // or none: then it is as before
	}
}

func (l *lasting) putInto(e *Evidence) {
	e.PCRs, e.AKPublic, e.AKCertificates = l.pcrs, l.akPublic, l.certificates
	e.EventLog, e.IMAList = l.eventLog, l.imaList
}
