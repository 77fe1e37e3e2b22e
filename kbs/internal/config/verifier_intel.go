package config

import "slices"

// Intel settings of the verifiers whose evidence is signed by a quoting enclave
// of Intel's.
type Intel struct {
	Enabled bool `toml:"enabled"`
	// AcceptedTCB are the statuses of a platform's TCB that pass, under Intel's
	// names. Policies see the status too, as tcb_status; Revoked cannot be
	// accepted.
	AcceptedTCB []string `toml:"accepted_tcb"`
	// MinTCBEvaluation is the lowest tcbEvaluationDataNumber that Intel's
	// judgement may have: it refuses judgements from before a TCB recovery.
	MinTCBEvaluation int `toml:"min_tcb_evaluation"`
	// InsecureSimulatedRoots are trusted beside Intel's root. Tokens that rest on
	// one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	// InsecureNoCollateral accepts platforms of which nothing is known where no
	// collateral is to be had: their keys may be revoked, their firmware broken.
	InsecureNoCollateral bool `toml:"insecure_no_collateral"`
	// InsecureDebug accepts guests that their host may read and write.
	InsecureDebug bool `toml:"insecure_debug"`
}

// TDX settings of the verifier of Intel TDX.
type TDX struct {
	Intel
	// InsecureMigratable accepts guests that may be moved to a platform that
	// nobody judged.
	InsecureMigratable bool `toml:"insecure_migratable"`
}

// SGX settings of the verifier of Intel SGX.
type SGX struct {
	Intel
}

const (
	tableTDX = "verifier.tdx"
	tableSGX = "verifier.sgx"
)

// upToDate is the one status that is accepted unless a configuration says
// otherwise.
const upToDate = "UpToDate"

func defaultIntel() Intel {
	return Intel{AcceptedTCB: []string{upToDate}, InsecureSimulatedRoots: []SimulatedRoot{}}
}

func (i Intel) files() []string { return rootFiles(i.InsecureSimulatedRoots) }

func (t TDX) insecure() []string { return t.insecureIn(tableTDX) }

func (s SGX) insecure() []string { return s.insecureIn(tableSGX) }

func (i Intel) insecureIn(table string) []string {
	out := insecureRoots(table, i.InsecureSimulatedRoots)
	if i.InsecureNoCollateral {
		out = append(out, table+".insecure_no_collateral")
	}
	if i.InsecureDebug {
		out = append(out, table+".insecure_debug")
	}
	return out
}

func (t TDX) insecureIn(table string) []string {
	out := t.Intel.insecureIn(table)
	if t.InsecureMigratable {
		out = append(out, table+".insecure_migratable")
	}
	return out
}

func (t TDX) validate(p *problems) { t.validateIn(tableTDX, p) }

func (s SGX) validate(p *problems) { s.validateIn(tableSGX, p) }

func (t TDX) validateIn(table string, p *problems) {
	t.Intel.validateIn(table, p)
	if !t.Enabled && t.InsecureMigratable {
		p.bad(table, "settings are given, but enabled is false")
	}
}

func (i Intel) validateIn(table string, p *problems) {
	validateRoots(table+".insecure_simulated_roots", i.InsecureSimulatedRoots, p)
	p.between(table+".min_tcb_evaluation", i.MinTCBEvaluation, 0, 1<<20)
	if len(i.AcceptedTCB) == 0 {
		p.bad(table+".accepted_tcb", "must name a status, for example %q: otherwise every guest is refused", upToDate)
	}
	for _, s := range i.AcceptedTCB {
		if !slices.Contains(intelStatuses, s) {
			p.bad(table+".accepted_tcb", "%q is not one of %v", s, intelStatuses)
		}
	}
	set := len(i.insecureIn(table)) > 0 || i.MinTCBEvaluation > 0 || !slices.Equal(i.AcceptedTCB, defaultIntel().AcceptedTCB)
	if !i.Enabled && set {
		p.bad(table, "settings are given, but enabled is false")
	}
}

// intelStatuses are those that can be accepted (kbs-protocol 16.3).
var intelStatuses = []string{
	upToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
	"TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded",
}
