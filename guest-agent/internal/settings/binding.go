package settings

import (
	"bytes"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// HostData reads the launch field that init-data is bound to. The SNP attester
// takes it from its own report (guest-protocol 5.3).
type HostData interface {
	HostData() ([32]byte, error)
}

// CheckBinding compares init-data with what the hardware says was given at
// launch. The upstream agent leaves this to the verifier (kata-agent 3.4); here
// a swapped document is refused before any of it takes effect. doc is nil when
// no init-data was given, and then the field must be zero: a host that merely
// withholds the document must not get the guest's defaults instead.
//
// A refusal is a *fault.Fault with code init_data_mismatch.
func CheckBinding(doc *initdata.Document, platform HostData) error {
	if platform == nil {
		return fault.New(fault.InitDataMismatch, errors.New("the platform has no launch field to compare init-data with"))
	}
	field, err := platform.HostData()
	if err != nil {
		return fault.Newf(fault.InitDataMismatch, "read the launch field: %w", err)
	}
	if doc == nil {
		if field != [32]byte{} {
			return fault.Newf(fault.InitDataMismatch, "the launch is bound to init-data %x, but none was given", field)
		}
		return nil
	}
	if !bytes.Equal(initdata.Fit(doc.Digest(), len(field)), field[:]) {
		return fault.Newf(fault.InitDataMismatch, "init-data has digest %s:%x, the launch is bound to %x", doc.Algorithm(), doc.Digest(), field)
	}
	return nil
}
