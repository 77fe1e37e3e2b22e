package dcap

import (
	"bytes"
	"time"
)

// The TCB of simulated chips, which is the best level of simulated collateral.
var (
	simulatedComponents = [16]uint8{7, 9, 3, 3, 3, 1, 0, 5}
	simulatedModule     = [16]byte{5, 1, 6} // TEE_TCB_SVN: module 1.5, microcode 6
)

const (
	simulatedPCESVN = 13
	simulatedQESVN  = 6
)

// SimulatedModule returns what the report of a simulated TD says of its TDX
// module.
func SimulatedModule() Module { return Module{SVN: simulatedModule} }

// simulatedTCBInfo knows two levels: that of the simulated chips, and one
// before, which is out of date.
func simulatedTCBInfo(tee TEE, now time.Time) *TCBInfo {
	issued := now.Add(-clockSlack).UTC().Truncate(time.Second)
	i := &TCBInfo{
		ID: tee.infoID(), Version: 3, IssueDate: issued, NextUpdate: issued.Add(collateralLife),
		FMSPC: SimulatedFMSPC[:], PCEID: make([]byte, 2), EvaluationNumber: evaluationNumber,
	}
	best, older := simulatedLevel(tee, UpToDate, 0), simulatedLevel(tee, OutOfDate, 1)
	older.Advisories = []string{"INTEL-SA-00000"}
	i.Levels = []TCBLevel{best, older}
	if tee == TDX {
		i.Module = &ModuleIdentity{Signer: make([]byte, 48), Attributes: make([]byte, 8), AttributesMask: bytes.Repeat([]byte{0xff}, 8)}
		first := *i.Module
		first.ID = "TDX_01"
		first.Levels = []EnclaveLevel{enclaveLevel(uint16(simulatedModule[0]), UpToDate), enclaveLevel(uint16(simulatedModule[0])-2, OutOfDate)}
		i.Modules = []ModuleIdentity{first}
	}
	return i
}

// simulatedDate is since when the simulated levels are what they are.
var simulatedDate = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// simulatedLevel is the level of simulated chips, or one that is some steps
// below.
func simulatedLevel(tee TEE, s Status, below uint8) TCBLevel {
	l := TCBLevel{Worth: Worth{Date: simulatedDate, Status: s}}
	for _, n := range simulatedComponents {
		l.TCB.SGX = append(l.TCB.SGX, Component{SVN: n - min(n, below)})
	}
	l.TCB.PCESVN = simulatedPCESVN
	if tee != TDX {
		return l
	}
	for n, svn := range simulatedModule {
		if n < 2 {
			svn = 0 // the module has levels of its own
		}
		l.TCB.TDX = append(l.TCB.TDX, Component{SVN: svn - min(svn, below)})
	}
	return l
}

func enclaveLevel(svn uint16, s Status) EnclaveLevel {
	l := EnclaveLevel{Worth: Worth{Date: simulatedDate, Status: s}}
	l.TCB.ISVSVN = svn
	return l
}

// simulatedQEIdentity is Intel's, but for the versions.
func simulatedQEIdentity(tee TEE, now time.Time) *QEIdentity {
	issued := now.Add(-clockSlack).UTC().Truncate(time.Second)
	qe := tee.quotingEnclave()
	mask := append(bytes.Repeat([]byte{0xff}, 8), make([]byte, 8)...)
	mask[0] = 0xfb
	return &QEIdentity{
		ID: qe.id, Version: 2, IssueDate: issued, NextUpdate: issued.Add(collateralLife), EvaluationNumber: evaluationNumber,
		MiscSelect: make([]byte, 4), MiscSelectMask: bytes.Repeat([]byte{0xff}, 4),
		Attributes: append([]byte{qeFlags}, make([]byte, 15)...), AttributesMask: mask,
		MRSigner: qe.signer[:], ISVProdID: qe.prodID,
		Levels: []EnclaveLevel{enclaveLevel(simulatedQESVN, UpToDate), enclaveLevel(simulatedQESVN-2, OutOfDate)},
	}
}

// qeFlags are the attributes of a quoting enclave under the usual mask.
const qeFlags = FlagInit | FlagProvisionKey
