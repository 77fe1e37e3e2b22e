package settings

import (
	"context"
	"errors"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// Binder is a platform whose evidence is bound to init-data: by a field of the
// launch, which it compares, or by a PCR, which it extends (guest-protocol 5.3).
type Binder interface {
	// BindInitData takes the digest of the document, nil for none.
	BindInitData(ctx context.Context, digest []byte) error
}

// CheckBinding compares init-data with what the hardware says was given at
// launch. The upstream agent leaves this to the verifier (kata-agent 3.4); here
// a swapped document is refused before any of it takes effect. doc is nil when
// no init-data was given, and then the field must be zero: a host that merely
// withholds the document must not get the guest's defaults instead. On a TPM,
// where there is no field, evidence tells what was taken.
//
// A refusal is a *fault.Fault with code init_data_mismatch.
func CheckBinding(ctx context.Context, doc *initdata.Document, platform Binder) error {
	if platform == nil {
		return fault.New(fault.InitDataMismatch, errors.New("the platform has nothing to bind init-data to"))
	}
	var digest []byte
	if doc != nil {
		digest = doc.Digest()
	}
	if err := platform.BindInitData(ctx, digest); err != nil {
		return fault.New(fault.InitDataMismatch, err)
	}
	return nil
}
