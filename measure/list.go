package measure

import (
	"context"
	"errors"
	"fmt"
)

// A ListVerifier is a Verifier of a platform whose evidence may be that of
// several devices at once, each with claims and a judgement of its own.
type ListVerifier interface {
	Verifier
	// VerifyAll is Verify with a verdict for each device, in the order of the
	// evidence. If any check of any device failed the error is that of ListErr.
	VerifyAll(ctx context.Context, ev Evidence, want Expected) ([]Verdict, error)
}

// VerifyAll judges evidence that may be that of several devices. A verdict
// comes with every piece of evidence that can be parsed; without one there is
// an error.
func VerifyAll(ctx context.Context, v Verifier, ev Evidence, want Expected) ([]Verdict, error) {
	if l, ok := v.(ListVerifier); ok {
		return l.VerifyAll(ctx, ev, want)
	}
	one, err := v.Verify(ctx, ev, want)
	return []Verdict{one}, err
}

// ListErr returns a *VerificationError with every check of every verdict that
// failed, or nil. Where there are several verdicts, reasons say of which device
// they are.
func ListErr(all []Verdict) error {
	var out *VerificationError
	for i, v := range all {
		failed, ok := errors.AsType[*VerificationError](v.Err())
		if !ok {
			continue
		}
		if out == nil {
			out = &VerificationError{Platform: v.Platform}
		}
		for _, c := range failed.Failed {
			if len(all) > 1 {
				c.Reason = fmt.Sprintf("device %d: %s", i, c.Reason)
			}
			out.Failed = append(out.Failed, c)
		}
	}
	if out == nil {
		return nil
	}
	return out
}
