package dcap

import (
	"bytes"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// ClaimSimulatedRoot is the claim that names the root of simulated evidence.
// It is absent under Intel's root.
const ClaimSimulatedRoot = "simulated_root"

// claims are those that do not come from the quote's body.
func (e *examination) claims() measure.Claims {
	c := measure.Claims{}
	if e.chain == nil {
		return c
	}
	if r := e.chain.root; r != nil {
		c["root_key_id"] = rootKeyID(r)
		if r.simulated {
			c[ClaimSimulatedRoot] = r.name
		}
	}
	e.chain.pck.addClaims(c)
	if e.endorsements != nil {
		e.endorsements.addClaims(c, e.chain.certificates(), e.now)
	}
	if v := e.evaluation; v != nil {
		c["tcb_status"] = string(v.Status)
		c["tcb_date"] = date(v.Date)
		c["advisory_ids"] = list(v.Advisories)
		// Ours: which part is to blame.
		c["tcb_status_platform"] = string(v.Platform)
		c["tcb_status_qe"] = string(v.QE)
		if v.Module != "" {
			c["tcb_status_module"] = string(v.Module)
		}
		if v.Running != "" {
			c["tcb_status_running"] = string(v.Running)
		}
	}
	return c
}

// rootKeyID is the digest of the root's key as an uncompressed point, by which
// Intel's libraries name a root.
func rootKeyID(r *root) string {
	point, err := r.key.Bytes()
	if err != nil {
		return "" // the key was checked when the root was made
	}
	sum := sha512.Sum384(point)
	return hex.EncodeToString(sum[:])
}

// addClaims adds what the certificate says of the platform.
func (p *PCK) addClaims(c measure.Claims) {
	c["platform_provider_id"] = hex.EncodeToString(p.PPID[:])
	c["sgx_type"] = p.Kind.String()
	c["fmspc"] = hex.EncodeToString(p.FMSPC[:]) // from here on ours
	c["pce_id"] = hex.EncodeToString(p.PCEID[:])
	c["pck_ca"] = string(p.CA)
	c["pck_cpu_svn"] = hex.EncodeToString(p.CPUSVN[:])
	c["pck_tcb_components"] = hex.EncodeToString(p.Components[:])
	c["pck_pce_svn"] = number(p.PCESVN)
	if p.InstanceID != nil {
		id := bytes.Clone(p.InstanceID)
		slices.Reverse(id) // as the field's verifiers print it (kbs-protocol 16.3)
		c["platform_instance_id"] = hex.EncodeToString(id)
	}
	if p.Kind == Standard || p.Configuration == nil {
		return
	}
	for name, b := range map[string]*bool{
		"is_dynamic_platform": p.Configuration.Dynamic, "is_cached_keys": p.Configuration.CachedKeys, "is_smt_enabled": p.Configuration.SMT,
	} {
		if b != nil {
			c[name] = *b
		}
	}
}

// addClaims adds the dates and numbers of the collateral, where all of it is
// good.
func (d *endorsements) addClaims(c measure.Claims, chain []*x509.Certificate, now time.Time) {
	if !d.whole() {
		return
	}
	s := newSpan(d.info.IssueDate, d.info.NextUpdate)
	s.add(d.identity.IssueDate, d.identity.NextUpdate)
	for _, l := range []*revocations{d.pckCRL, d.rootCRL} {
		s.add(l.list.ThisUpdate, l.list.NextUpdate)
	}
	for _, x := range slices.Concat(chain, d.signers) {
		s.add(x.NotBefore, x.NotAfter)
	}
	c["earliest_issue_date"] = date(s.firstIssue)
	c["latest_issue_date"] = date(s.lastIssue)
	c["earliest_expiration_date"] = date(s.firstEnd)
	c["collateral_expiration_status"] = "0"
	if now.After(s.firstEnd) {
		c["collateral_expiration_status"] = "1"
	}
	c["tcb_eval_num"] = number(min(d.info.EvaluationNumber, d.identity.EvaluationNumber))
	if n := d.pckCRL.list.Number; n != nil {
		c["pck_crl_num"] = json.Number(n.String())
	}
	if n := d.rootCRL.list.Number; n != nil {
		c["root_ca_crl_num"] = json.Number(n.String())
	}
}

// span is when the parts of collateral were issued, and when the first ends.
type span struct{ firstIssue, lastIssue, firstEnd time.Time }

func newSpan(from, until time.Time) span { return span{from, from, until} }

func (s *span) add(from, until time.Time) {
	s.firstIssue, s.firstEnd = earliest(s.firstIssue, from), earliest(s.firstEnd, until)
	if from.After(s.lastIssue) {
		s.lastIssue = from
	}
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func list(text []string) []any {
	out := make([]any, len(text))
	for i, s := range text {
		out[i] = s
	}
	return out
}

func number[T uint16 | uint32](n T) json.Number {
	return json.Number(strconv.FormatUint(uint64(n), 10))
}

// Claims returns what an enclave report says, under the names of kbs-protocol
// 16.4.
func (r *EnclaveReport) Claims() measure.Claims {
	le := func(n uint64, size int) string {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
		return hex.EncodeToString(b)
	}
	return measure.Claims{
		"cpu_svn": hex.EncodeToString(r.CPUSVN[:]), "misc_select": le(uint64(r.MiscSelect), 4),
		"reserved1": hex.EncodeToString(r.Reserved1[:]), "isv_ext_prod_id": hex.EncodeToString(r.ISVExtProdID[:]),
		"attributes.flags": le(r.Attributes.Flags, 8), "attributes.xfrm": le(r.Attributes.XFRM, 8),
		"mr_enclave": hex.EncodeToString(r.MREnclave[:]), "reserved2": hex.EncodeToString(r.Reserved2[:]),
		"mr_signer": hex.EncodeToString(r.MRSigner[:]), "reserved3": hex.EncodeToString(r.Reserved3[:]),
		"config_id": hex.EncodeToString(r.ConfigID[:]), "isv_prod_id": le(uint64(r.ISVProdID), 2),
		"isv_svn": le(uint64(r.ISVSVN), 2), "config_svn": le(uint64(r.ConfigSVN), 2),
		"reserved4": hex.EncodeToString(r.Reserved4[:]), "isv_family_id": hex.EncodeToString(r.ISVFamilyID[:]),
		"report_data": hex.EncodeToString(r.ReportData[:]),
	}
}

// Claims returns the quote's header as claims, in the order of its bytes:
// integers are the hex of their little-endian bytes (kbs-protocol 16.3, 16.4).
func (h Header) Claims() measure.Claims {
	c := measure.Claims{
		"version":      fmt.Sprintf("%02x%02x", byte(h.Version), byte(h.Version>>8)),
		"att_key_type": fmt.Sprintf("%02x%02x", byte(h.KeyType), byte(h.KeyType>>8)),
		"vendor_id":    hex.EncodeToString(h.VendorID[:]),
		"user_data":    hex.EncodeToString(h.UserData[:]),
	}
	tee := fmt.Sprintf("%02x%02x%02x%02x", byte(h.TEEType), byte(h.TEEType>>8), byte(h.TEEType>>16), byte(h.TEEType>>24))
	if h.Version == 3 {
		qe, pce := h.QESVN(), h.PCESVN()
		c["att_key_data_0"], c["qe_svn"], c["pce_svn"] = tee, hex.EncodeToString(qe[:]), hex.EncodeToString(pce[:])
		return c
	}
	c["tee_type"], c["reserved"] = tee, hex.EncodeToString(h.Reserved[:])
	return c
}
