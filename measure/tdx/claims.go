package tdx

import (
	"encoding/hex"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
)

// Claims returns what evidence claims, whether or not it is true: the claims
// of kbs-protocol 16.3 that the quote and the event log make, under their
// names there. Those that rest on collateral come with a verdict only. A log
// that cannot be parsed gives no claims.
func (e *Evidence) Claims() (measure.Claims, error) {
	q, r, err := parseQuote(e.Quote)
	if err != nil {
		return nil, err
	}
	var log *eventlog.Log
	if e.EventLog != nil {
		if log, err = eventlog.Parse(e.EventLog); err != nil {
			return nil, err
		}
	}
	c := measure.Claims{}
	addClaims(c, q, r)
	if log != nil {
		c[eventlog.ClaimEvents] = log.ClaimsIn(eventlog.SHA384)
	}
	return c, nil
}

// addClaims adds the claims of a quote.
func addClaims(c measure.Claims, q *dcap.Quote, r *Report) {
	quote := measure.Claims{"header": q.Header.Claims(), "body": r.claims()}
	if q.Header.Version >= 5 {
		size := len(q.Body)
		quote["type"] = fmt.Sprintf("%02x%02x", byte(q.BodyType), byte(q.BodyType>>8))
		quote["size"] = fmt.Sprintf("%02x%02x0000", byte(size), byte(size>>8))
	}
	c["quote"] = quote
	c["td_attributes"] = r.Attributes.claims()
	c["report_data"] = hex.EncodeToString(r.ReportData[:])
	c["init_data"] = hex.EncodeToString(r.MRConfigID[:])
}

func (r *Report) claims() measure.Claims {
	c := measure.Claims{
		"tcb_svn":         hex.EncodeToString(r.TEETCBSVN[:]),
		"mr_seam":         hex.EncodeToString(r.MRSEAM[:]),
		"mrsigner_seam":   hex.EncodeToString(r.MRSignerSEAM[:]),
		"seam_attributes": hex.EncodeToString(r.SEAMAttributes[:]),
		"td_attributes":   littleEndian(uint64(r.Attributes)),
		"xfam":            littleEndian(r.XFAM),
		"mr_td":           hex.EncodeToString(r.MRTD[:]),
		"mr_config_id":    hex.EncodeToString(r.MRConfigID[:]),
		"mr_owner":        hex.EncodeToString(r.MROwner[:]),
		"mr_owner_config": hex.EncodeToString(r.MROwnerConfig[:]),
		"report_data":     hex.EncodeToString(r.ReportData[:]),
	}
	for n, m := range r.RTMR {
		c[fmt.Sprintf("rtmr_%d", n)] = hex.EncodeToString(m[:])
	}
	if r.TDX15 != nil {
		c["tee_tcb_svn2"] = hex.EncodeToString(r.TDX15.TEETCBSVN2[:])
		c["mr_servicetd"] = hex.EncodeToString(r.TDX15.MRServiceTD[:])
	}
	return c
}

// claims spells out the attributes. The field knows all but the last.
func (a Attributes) claims() measure.Claims {
	return measure.Claims{
		"debug":           a&AttrDebug != 0,
		"septve_disable":  a&AttrSEPTVEDisable != 0,
		"protection_keys": a&AttrPKS != 0,
		"key_locker":      a&AttrKeyLocker != 0,
		"perfmon":         a&AttrPerfmon != 0,
		"migratable":      a&AttrMigratable != 0,
	}
}

// littleEndian is the hex of a number's bytes in memory.
func littleEndian(n uint64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return hex.EncodeToString(b[:])
}
