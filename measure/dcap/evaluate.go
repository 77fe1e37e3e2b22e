package dcap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// Module is what a TD's report says of the TDX module beneath it.
type Module struct {
	SVN        [16]byte // TEE_TCB_SVN: the module's SVN, its version, microcode, ...
	Signer     [48]byte // MRSIGNERSEAM
	Attributes [8]byte  // SEAMATTRIBUTES
	// Running is TEE_TCB_SVN2 of TDX 1.5: the module that runs now, where SVN
	// is the one under which the TD was launched. Nil in TDX 1.0.
	Running *[16]byte
}

// Evaluation is what a platform is worth: the whole, and its parts.
type Evaluation struct {
	Worth
	Platform Status
	Module   Status // of a TDX module that has levels of its own, otherwise empty
	Running  Status // platform and module as they are now, in TDX 1.5, otherwise empty
	QE       Status
}

// errNoLevel is a TCB that is below every level that Intel lists.
var errNoLevel = errors.New("the TCB is below every level of the TCB info")

// evaluate finds out what a platform is worth (Intel PCS API version 4, "Get
// TDX TCB Info" and "Get SGX TCB Info", the algorithms there). What is wrong
// with the identities goes to the tally; the evaluation is nil where no level
// fits.
func evaluate(info *TCBInfo, identity *QEIdentity, pck *PCK, qe *EnclaveReport, module *Module, t *measure.Tally) *Evaluation {
	identity.check(qe, t)
	if module != nil {
		if err := info.checkModule(module); err != nil {
			t.Fail(err)
		}
	}
	e, err := info.evaluate(pck, module)
	if err != nil {
		t.Fail(err)
	}
	level, ok := findLevel(identity.Levels, qe.ISVSVN)
	if !ok {
		t.Find("the quoting enclave is older than every level of its identity", "qe_isvsvn", fmt.Sprint(qe.ISVSVN))
	}
	if err != nil || !ok {
		return nil
	}
	e.QE = level.Status
	e.Worth = e.Worth.with(level.Worth)
	return e
}

// evaluate judges the platform and the TDX module: the one under which the TD
// was launched, and the one that runs now. A TD that was launched under a
// module which is out of date, on a platform where a current one runs by now,
// only needs to be launched again. Otherwise the worse of both counts.
func (i *TCBInfo) evaluate(pck *PCK, module *Module) (*Evaluation, error) {
	if module == nil {
		return i.evaluateAt(pck, nil)
	}
	e, err := i.evaluateAt(pck, &module.SVN)
	if err != nil || module.Running == nil {
		return e, err
	}
	now, err := i.evaluateAt(pck, module.Running)
	if err != nil {
		return nil, fmt.Errorf("as the platform is now: %w", err)
	}
	e.Running = now.Status
	switch {
	case !e.Status.needs().update || now.Status == Revoked || now.Status.needs().update:
		e.Worth = e.Worth.with(now.Worth)
	case now.Status.needs().configuration:
		e.Status = TDRelaunchAdvisedConfigurationNeeded
	default:
		e.Status = TDRelaunchAdvised
	}
	return e, nil
}

// evaluateAt judges the platform and a TDX module of the given TEE_TCB_SVN.
func (i *TCBInfo) evaluateAt(pck *PCK, svn *[16]byte) (*Evaluation, error) {
	at := slices.IndexFunc(i.Levels, func(l TCBLevel) bool { return l.reached(pck, svn) })
	if at < 0 {
		return nil, errNoLevel
	}
	e := &Evaluation{Worth: i.Levels[at].Worth, Platform: i.Levels[at].Status}
	if svn == nil || svn[1] == 0 {
		return e, nil // before module version 1 the platform's level covers the module
	}
	m, err := i.module(svn[1])
	if err != nil {
		return nil, err
	}
	level, ok := findLevel(m.Levels, uint16(svn[0]))
	if !ok {
		return nil, fmt.Errorf("the TDX module's SVN %d is below every level of %s", svn[0], m.ID)
	}
	e.Module = level.Status
	e.Worth = e.Worth.with(level.Worth)
	return e, nil
}

// reached reports whether a platform has at least the SVNs of a level. From
// version 1 on, the first two TDX components are the module's own, which has
// levels of its own.
func (l *TCBLevel) reached(pck *PCK, svn *[16]byte) bool {
	for n, c := range l.TCB.SGX {
		if pck.Components[n] < c.SVN {
			return false
		}
	}
	if pck.PCESVN < l.TCB.PCESVN {
		return false
	}
	if svn == nil {
		return true
	}
	for n, c := range l.TCB.TDX {
		if n < 2 && svn[1] > 0 {
			continue
		}
		if svn[n] < c.SVN {
			return false
		}
	}
	return true
}

// findLevel returns the first level, and so the best, that an SVN reaches.
func findLevel(levels []EnclaveLevel, svn uint16) (EnclaveLevel, bool) {
	at := slices.IndexFunc(levels, func(l EnclaveLevel) bool { return svn >= l.TCB.ISVSVN })
	if at < 0 {
		return EnclaveLevel{}, false
	}
	return levels[at], true
}

// module returns the identity of a version of the TDX module.
func (i *TCBInfo) module(version uint8) (*ModuleIdentity, error) {
	id := fmt.Sprintf("TDX_%02X", version)
	for n := range i.Modules {
		if strings.EqualFold(i.Modules[n].ID, id) {
			return &i.Modules[n], nil
		}
	}
	return nil, fmt.Errorf("the TCB info knows no TDX module %s", id)
}

// checkModule tells whether the TDX module is one of Intel's.
func (i *TCBInfo) checkModule(m *Module) error {
	id := i.Module
	if m.SVN[1] > 0 {
		var err error
		if id, err = i.module(m.SVN[1]); err != nil {
			return err
		}
	}
	if id == nil {
		return errors.New("the TCB info has no identity of the TDX module")
	}
	if !bytes.Equal(m.Signer[:], id.Signer) {
		return fmt.Errorf("the TDX module is signed by %x, want %x", m.Signer, []byte(id.Signer))
	}
	if !masked(m.Attributes[:], id.AttributesMask, id.Attributes) {
		return fmt.Errorf("the TDX module has the attributes %x, want %x under the mask %x", m.Attributes, []byte(id.Attributes), []byte(id.AttributesMask))
	}
	return nil
}

// check reports in what a quoting enclave is not the one of the identity.
func (i *QEIdentity) check(qe *EnclaveReport, t *measure.Tally) {
	raw := qe.Marshal()
	misc, attributes := raw[16:20], raw[48:64]
	if !masked(misc, i.MiscSelectMask, i.MiscSelect) {
		t.Find("the quoting enclave has other state components than Intel's", "qe_miscselect", hex.EncodeToString(misc), hex.EncodeToString(i.MiscSelect))
	}
	if !masked(attributes, i.AttributesMask, i.Attributes) {
		t.Find("the quoting enclave has other attributes than Intel's", "qe_attributes", hex.EncodeToString(attributes),
			fmt.Sprintf("%x under the mask %x", []byte(i.Attributes), []byte(i.AttributesMask)))
	}
	if !bytes.Equal(qe.MRSigner[:], i.MRSigner) {
		t.Find("the quoting enclave is not signed by Intel", "qe_mr_signer", hex.EncodeToString(qe.MRSigner[:]), hex.EncodeToString(i.MRSigner))
	}
	if qe.ISVProdID != i.ISVProdID {
		t.Find("the quoting enclave is another product", "qe_isv_prod_id", fmt.Sprint(qe.ISVProdID), fmt.Sprint(i.ISVProdID))
	}
}

func masked(value, mask, want []byte) bool {
	for n, b := range value {
		if b&mask[n] != want[n] {
			return false
		}
	}
	return true
}

// with joins the worth of two parts: the worse status, the older date, the
// advisories of both.
func (w Worth) with(part Worth) Worth {
	out := Worth{Status: w.Status.with(part.Status), Date: earliest(w.Date, part.Date), Advisories: slices.Clone(w.Advisories)}
	for _, a := range part.Advisories {
		if !slices.Contains(out.Advisories, a) {
			out.Advisories = append(out.Advisories, a)
		}
	}
	return out
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
