package cca

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

func keys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// checkChain looks the machine up: no certificate leads from it to its maker,
// only the trust store does.
func (a *examination) checkChain() measure.Check {
	var t measure.Tally
	p := a.token.Platform
	switch {
	case a.anchor == nil:
		t.Find("no trust store has this machine", measure.FieldRoot, "instance "+hex.EncodeToString(p.InstanceID[:]), a.v.names...)
	case a.anchor.implementation != p.ImplementationID:
		t.Find("the machine is of another kind than the trust store says", "cca-platform-implementation-id",
			hex.EncodeToString(p.ImplementationID[:]), hex.EncodeToString(a.anchor.implementation[:]))
	}
	return t.Check(measure.CheckChain)
}

// Lifecycle is the security state of a platform: the upper byte of the claim.
type Lifecycle byte

// The states (RMM specification A7.2.3.2.7, the lower byte is the maker's).
const (
	Unknown          Lifecycle = 0x00
	AssemblyAndTest  Lifecycle = 0x10
	Provisioning     Lifecycle = 0x20
	Secured          Lifecycle = 0x30
	NonPlatformDebug Lifecycle = 0x40
	RecoverableDebug Lifecycle = 0x50
	Decommissioned   Lifecycle = 0x60
)

// String returns the state's name in the specification.
func (l Lifecycle) String() string {
	switch l {
	case Unknown:
		return "unknown"
	case AssemblyAndTest:
		return "assembly-and-test"
	case Provisioning:
		return "cca-platform-rot-provisioning"
	case Secured:
		return "secured"
	case NonPlatformDebug:
		return "non-cca-platform-rot-debug"
	case RecoverableDebug:
		return "recoverable-cca-platform-rot-debug"
	case Decommissioned:
		return "decommissioned"
	}
	return fmt.Sprintf("reserved-%02x", byte(l))
}

// State returns the lifecycle state of the platform.
func (p *Platform) State() Lifecycle { return Lifecycle(p.Lifecycle >> 8) }

// checkTCB demands a platform that is sealed. Which firmware is good enough is
// for policies to say, over the software components.
func (a *examination) checkTCB() measure.Check {
	var t measure.Tally
	state := a.token.Platform.State()
	if state != Secured {
		t.Find("the platform is not secured: its firmware or debugger may see the realm", "cca-platform-lifecycle",
			fmt.Sprintf("%#04x (%s)", a.token.Platform.Lifecycle, state), fmt.Sprintf("%#04x to %#04x (%s)", 0x3000, 0x30ff, Secured))
	}
	c := t.Check(measure.CheckTCB)
	if c.Outcome == measure.Failed && a.v.anyLifecycle {
		c.Outcome = measure.Waived
		c.Reason += "; waived by configuration (UnsafeAnyLifecycle)"
	}
	return c
}

// checkRealmKey ties the two parts together: the platform's challenge is the
// hash of the key that signed the realm's part, as it is written there.
func (a *examination) checkRealmKey() measure.Check {
	var t measure.Tally
	hash, err := sum(a.token.Realm.KeyHash, a.token.Realm.PublicKey)
	switch {
	case err != nil:
		t.Fail(fmt.Errorf("the hash of the realm's key: %w", err))
	case !bytes.Equal(hash, a.token.Platform.Challenge):
		t.Find("the platform does not vouch for the realm's key", "cca-platform-challenge", hex.EncodeToString(a.token.Platform.Challenge), hex.EncodeToString(hash))
	}
	return t.Check(CheckRealmKey)
}
