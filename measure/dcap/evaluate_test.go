package dcap

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// TestEveryStatus gives a chip every status that Intel has, and accepts each
// in turn: what is accepted passes, and nothing else.
func TestEveryStatus(t *testing.T) {
	l := newLab(t, SGX, ChipOptions{})
	for _, given := range []Status{
		UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked,
	} {
		l.state(Statement{TCBInfo: func(i *TCBInfo) { i.Levels[0].Status = given }})
		for _, accepted := range Acceptable() {
			o := l.opinion(func(c *Config) { c.Accepted = []Status{accepted} })
			want := map[measure.CheckName]string{measure.CheckTCB: fmt.Sprintf("the TCB is %s", given)}
			if given == accepted {
				want = nil
			}
			wantFailures(t, o, want)
			if o.Claims["tcb_status"] != string(given) {
				t.Errorf("tcb_status is %v, want %s", o.Claims["tcb_status"], given)
			}
		}
	}
}

func TestMinimalEvaluation(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{})
	least := func(n uint32) func(*Config) { return func(c *Config) { c.MinEvaluation = n } }
	wantFailures(t, l.opinion(least(evaluationNumber)), nil)
	wantFailures(t, l.opinion(least(evaluationNumber+1)), map[measure.CheckName]string{
		measure.CheckTCB: "the TCB info is of an older evaluation than wanted; the QE identity is of an older evaluation than wanted",
	})
	l.state(Statement{QEIdentity: func(i *QEIdentity) { i.EvaluationNumber-- }})
	wantFailures(t, l.opinion(least(evaluationNumber)), map[measure.CheckName]string{measure.CheckTCB: "the QE identity is of an older evaluation"})
}

// TestModule is about the TDX module beneath a TD.
func TestModule(t *testing.T) {
	running := func(svn ...uint8) *[16]byte {
		out := simulatedModule
		copy(out[:], svn)
		return &out
	}
	withoutModules := Statement{TCBInfo: func(i *TCBInfo) { i.Modules = nil }}
	for name, test := range map[string]struct {
		chip   ChipOptions
		say    Statement
		change func(*Module)
		want   string // of the TCB check; empty if it passes
		status Status // empty if there is none
	}{
		"as Intel made it":     {change: func(*Module) {}, status: UpToDate},
		"newer than the level": {change: func(m *Module) { m.SVN[0] = 200 }, status: UpToDate},
		"old": {
			change: func(m *Module) { m.SVN[0] = 3 }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		"below every level": {
			change: func(m *Module) { m.SVN[0] = 1 }, want: "the TDX module's SVN 1 is below every level of TDX_01",
		},
		"of a version that nobody knows": {
			change: func(m *Module) { m.SVN[1] = 0x3a }, want: "the TCB info knows no TDX module TDX_3A",
		},
		"of another maker": {
			change: func(m *Module) { m.Signer[0] = 1 }, want: "the TDX module is signed by 01", status: UpToDate,
		},
		"with other attributes": {
			change: func(m *Module) { m.Attributes[0] = 1 }, want: "the TDX module has the attributes 01", status: UpToDate,
		},
		"old microcode": {
			change: func(m *Module) { m.SVN[2] = 5 }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		// A verifier that keeps the better of both judgements accepts this.
		"up to date on an old platform": {
			chip: ChipOptions{PCK: func(p *PCK) { p.Components[2]-- }}, change: func(*Module) {}, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		"version 0, in the platform's level": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Modules = nil; i.Levels[0].TCB.TDX[0].SVN = 5 }},
			change: func(m *Module) { m.SVN[1] = 0 }, status: UpToDate,
		},
		"version 0, old": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Modules = nil; i.Levels[0].TCB.TDX[0].SVN = 6 }},
			change: func(m *Module) { m.SVN[1] = 0 }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		"version 0, of another maker": {
			say: withoutModules, change: func(m *Module) { m.SVN[1] = 0; m.Signer[47] = 1 }, want: "the TDX module is signed by", status: UpToDate,
		},
		"without any identity": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Module, i.Modules = nil, nil }},
			change: func(m *Module) { m.SVN[1] = 0 }, want: "no identity of the TDX module", status: UpToDate,
		},
		"with an identity that is cut": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Modules[0].AttributesMask = nil }},
			change: func(*Module) {}, want: `TDX module "TDX_01": a field has the wrong length`,
		},
		"with a general identity that is cut": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Module.Signer = nil }},
			change: func(m *Module) { m.SVN[1] = 0 }, want: `a field has the wrong length`,
		},
		"revoked": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Modules[0].Levels[0].Status = Revoked }},
			change: func(*Module) {}, want: "the TCB is Revoked", status: Revoked,
		},
		"old, and the one that runs now is not": {
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(5) }, want: "the TCB is TDRelaunchAdvised", status: TDRelaunchAdvised,
		},
		"old, and the one that runs now too": {
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(3) }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		"old, and nobody knows the one that runs now": {
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(5, 9) }, want: "as the platform is now: the TCB info knows no TDX module TDX_09",
		},
		"old, on a platform to be configured": {
			say:    Statement{TCBInfo: func(i *TCBInfo) { i.Levels[0].Status = ConfigurationNeeded }},
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(5) },
			want:   "the TCB is TDRelaunchAdvisedConfigurationNeeded", status: TDRelaunchAdvisedConfigurationNeeded,
		},
		"old, with an old quoting enclave": {
			chip:   ChipOptions{QE: func(r *EnclaveReport) { r.ISVSVN -= 2 }},
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(5) }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
		"old, where the one that runs now is revoked": {
			say: Statement{TCBInfo: func(i *TCBInfo) {
				i.Modules[0].Levels = append([]EnclaveLevel{enclaveLevel(9, Revoked)}, i.Modules[0].Levels...)
			}},
			change: func(m *Module) { m.SVN[0], m.Running = 3, running(9) }, want: "the TCB is Revoked", status: Revoked,
		},
		"good, and the one that runs now is older": {
			change: func(m *Module) { m.Running = running(3) }, want: "the TCB is OutOfDate", status: OutOfDate,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, TDX, test.chip)
			l.state(test.say)
			m := SimulatedModule()
			test.change(&m)
			o := l.judge().Judge(t.Context(), l.quote(), &m)
			want := map[measure.CheckName]string{measure.CheckTCB: test.want}
			if test.want == "" {
				want = nil
			}
			wantFailures(t, o, want)
			if got, _ := o.Claims["tcb_status"].(string); got != string(test.status) {
				t.Errorf("tcb_status is %q, want %q", got, test.status)
			}
		})
	}
}

// TestPartsMakeNoWholeBetter holds for every pair of statuses.
func TestPartsMakeNoWholeBetter(t *testing.T) {
	all := append(Acceptable(), Revoked)
	for _, a := range all {
		for _, b := range all {
			whole := a.with(b)
			if whole != b.with(a) {
				t.Errorf("%s with %s is %s, the other way round %s", a, b, whole, b.with(a))
			}
			if (a == Revoked || b == Revoked) != (whole == Revoked) {
				t.Errorf("%s with %s is %s", a, b, whole)
			}
			if whole == Revoked {
				continue
			}
			x, y, w := a.needs(), b.needs(), whole.needs()
			if w.update != (x.update || y.update) || w.configuration != (x.configuration || y.configuration) {
				t.Errorf("%s with %s is %s, which needs %+v", a, b, whole, w)
			}
			if (x.relaunch || y.relaunch) && !w.relaunch && !w.update || (x.hardening || y.hardening) && w == (needs{}) {
				t.Errorf("%s with %s is %s, which needs %+v", a, b, whole, w)
			}
		}
		if a.with(UpToDate) != a || a.with(a) != a {
			t.Errorf("%s with UpToDate is %s, with itself %s", a, a.with(UpToDate), a.with(a))
		}
	}
}

// TestClaimsOfCollateral are those that only collateral tells.
func TestClaimsOfCollateral(t *testing.T) {
	l := newLab(t, TDX, ChipOptions{PCK: func(p *PCK) { p.Components[0]-- }})
	o := l.opinion(func(c *Config) { c.Accepted = []Status{OutOfDate} })
	wantFailures(t, o, nil)
	for name, want := range map[string]string{
		"tcb_status": "OutOfDate", "tcb_date": "2025-01-01T00:00:00Z", "advisory_ids": "[INTEL-SA-00000]",
		"tcb_status_platform": "OutOfDate", "tcb_status_qe": "UpToDate", "tcb_status_module": "UpToDate",
		"earliest_issue_date": "2026-06-01T11:00:00Z", "latest_issue_date": "2026-06-01T11:00:00Z",
		"earliest_expiration_date": "2026-07-01T11:00:00Z", "collateral_expiration_status": "0",
		"tcb_eval_num": "17", "pck_crl_num": "1", "root_ca_crl_num": "1", "simulated_root": "lab", "pck_ca": "platform",
		"fmspc": "53494d000000", "pck_tcb_components": "06090303030100050000000000000000",
	} {
		if got := fmt.Sprint(o.Claims[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if id, _ := o.Claims["platform_instance_id"].(string); len(id) != 32 || strings.Trim(id, "0") == "" {
		t.Errorf("platform_instance_id is %q", id)
	}
}
