package collateral

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// A Name says what a piece of collateral is. It is a path of lower-case words,
// hex and AMD's names of generations:
//
//	intel/tdx/tcb/50806f000000   TCB info for a FMSPC; also intel/sgx/...
//	intel/tdx/qe                 identity of the quoting enclave
//	intel/pckcrl/platform        revocation list of a PCK CA; also processor
//	intel/rootcrl                revocation list of the root
//	amd/Genoa/vcek/crl           revocation list of a generation's root; also vlek
//	amd/Genoa/vcek/chain         signing certificate and root
//	amd/Genoa/vcek/CHIP/TCB      certificate of a chip's key for a TCB, both in hex
type Name string

// RootCRL is the revocation list of Intel's root.
const RootCRL Name = "intel/rootcrl"

// TCBInfo is what Intel says about the platforms of a FMSPC.
func TCBInfo(t dcap.TEE, fmspc [6]byte) Name { return Name(fmt.Sprintf("intel/%s/tcb/%x", t, fmspc)) }

// QEIdentity is what Intel says about its quoting enclave.
func QEIdentity(t dcap.TEE) Name { return Name(fmt.Sprintf("intel/%s/qe", t)) }

// PCKCRL is the revocation list of an authority for PCK certificates.
func PCKCRL(ca dcap.CA) Name { return Name("intel/pckcrl/" + ca) }

// AMDList is the revocation list of a generation's root, as it is published
// beside the certificates of a kind of keys.
func AMDList(g snp.Generation, k snp.SigningKey) Name { return amd(g, k, "crl") }

// AMDChain is the chain above the certificates of a kind of keys.
func AMDChain(g snp.Generation, k snp.SigningKey) Name { return amd(g, k, "chain") }

// VCEK is the certificate of a chip's key for a TCB. The chip has 64 bytes, or
// 8 on Turin.
func VCEK(g snp.Generation, chip []byte, tcb snp.TCB) Name {
	return amd(g, snp.VCEK, fmt.Sprintf("%x/%x", chip, tcb))
}

func amd(g snp.Generation, k snp.SigningKey, rest string) Name {
	return Name("amd/" + string(g) + "/" + strings.ToLower(k.String()) + "/" + rest)
}

type kind string

const (
	kindTCBInfo    kind = "TCB info"
	kindQEIdentity kind = "QE identity"
	kindPCKCRL     kind = "PCK revocation list"
	kindRootCRL    kind = "root revocation list"
	kindAMDList    kind = "AMD revocation list"
	kindAMDChain   kind = "AMD chain"
	kindVCEK       kind = "VCEK certificate"
)

// ref is a name taken apart.
type ref struct {
	kind       kind
	tee        dcap.TEE
	fmspc      [6]byte
	ca         dcap.CA
	generation snp.Generation
	key        snp.SigningKey
	chip       []byte
	tcb        snp.TCB
}

var errName = errors.New("not a name of collateral")

// parse accepts exactly what the functions above make.
func (n Name) parse() (ref, error) {
	parts := strings.Split(string(n), "/")
	var r ref
	var ok bool
	switch {
	case n == RootCRL:
		return ref{kind: kindRootCRL}, nil
	case len(parts) >= 3 && parts[0] == "intel":
		r, ok = parseIntel(parts[1:])
	case len(parts) >= 4 && parts[0] == "amd":
		r, ok = parseAMD(parts[1:])
	}
	if !ok || r.name() != n {
		return ref{}, fmt.Errorf("%q: %w", n, errName)
	}
	return r, nil
}

func parseIntel(p []string) (r ref, ok bool) {
	switch {
	case p[0] == "pckcrl" && len(p) == 2:
		r.kind, r.ca = kindPCKCRL, dcap.CA(p[1])
		return r, r.ca == dcap.Processor || r.ca == dcap.Platform
	case p[0] != string(dcap.TDX) && p[0] != string(dcap.SGX):
		return r, false
	}
	r.tee = dcap.TEE(p[0])
	switch {
	case p[1] == "qe" && len(p) == 2:
		r.kind = kindQEIdentity
		return r, true
	case p[1] == "tcb" && len(p) == 3 && len(p[2]) == 2*len(r.fmspc):
		r.kind = kindTCBInfo
		_, err := hex.Decode(r.fmspc[:], []byte(p[2]))
		return r, err == nil
	}
	return r, false
}

func parseAMD(p []string) (r ref, ok bool) {
	g, err := snp.ParseGeneration(p[0])
	if err != nil {
		return r, false
	}
	r.generation = g
	switch p[1] {
	case "vcek":
		r.key = snp.VCEK
	case "vlek":
		r.key = snp.VLEK
	default:
		return r, false
	}
	switch {
	case len(p) == 3 && p[2] == "crl":
		r.kind = kindAMDList
		return r, true
	case len(p) == 3 && p[2] == "chain":
		r.kind = kindAMDChain
		return r, true
	case len(p) == 4 && r.key == snp.VCEK && len(p[3]) == 2*len(r.tcb):
		r.kind = kindVCEK
		var chipErr error
		r.chip, chipErr = hex.DecodeString(p[2])
		_, tcbErr := hex.Decode(r.tcb[:], []byte(p[3]))
		want := 64
		if g == snp.Turin {
			want = 8
		}
		return r, chipErr == nil && tcbErr == nil && len(r.chip) == want
	}
	return r, false
}

func (r ref) name() Name {
	switch r.kind {
	case kindTCBInfo:
		return TCBInfo(r.tee, r.fmspc)
	case kindQEIdentity:
		return QEIdentity(r.tee)
	case kindPCKCRL:
		return PCKCRL(r.ca)
	case kindRootCRL:
		return RootCRL
	case kindAMDList:
		return AMDList(r.generation, r.key)
	case kindAMDChain:
		return AMDChain(r.generation, r.key)
	case kindVCEK:
		return VCEK(r.generation, r.chip, r.tcb)
	}
	return ""
}

// OfChip reports whether it is the certificate of a chip, of which there are
// as many as chips.
func (n Name) OfChip() bool {
	r, err := n.parse()
	return err == nil && r.kind == kindVCEK
}

// file is the name of the file that keeps it. No word has a dash.
func (n Name) file() string { return strings.ReplaceAll(string(n), "/", "-") + ".json" }

func nameOfFile(file string) (Name, bool) {
	text, ok := strings.CutSuffix(file, ".json")
	n := Name(strings.ReplaceAll(text, "-", "/"))
	_, err := n.parse()
	return n, ok && err == nil
}

// named reports whether evidence names items of this kind, so that anyone can.
func (k kind) named() bool { return k == kindVCEK || k == kindTCBInfo }

// limit bounds the body of a kind, in bytes.
func (k kind) limit() int {
	switch k {
	case kindPCKCRL, kindRootCRL, kindAMDList:
		return 8 << 20
	case kindTCBInfo, kindQEIdentity:
		return 1 << 20
	case kindAMDChain, kindVCEK:
	}
	return 64 << 10
}

// maxChain bounds an issuer chain, in bytes of PEM.
const maxChain = 64 << 10
