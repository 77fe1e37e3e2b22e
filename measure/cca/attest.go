package cca

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
)

// Attester obtains tokens of the realm that it runs in, by configfs-tsm: Linux
// has no other way. It is safe for concurrent use.
type Attester struct{ reports tsm.Reports }

// NewAttester returns an attester that asks this kernel. It asks for nothing
// yet.
func NewAttester(k tsm.Kernel) (*Attester, error) {
	if k == nil {
		return nil, errors.New("cca: no kernel to ask for tokens")
	}
	return &Attester{tsm.Reports{Kernel: k}}, nil
}

// Platform returns [measure.CCA].
func (a *Attester) Platform() measure.Platform { return measure.CCA }

// Evidence returns a fresh token whose realm challenge is the report data, in
// the wire form of kbs-protocol 16.7.
func (a *Attester) Evidence(ctx context.Context, data measure.ReportData) (measure.Evidence, error) {
	raw, _, err := a.obtain(ctx, data)
	if err != nil {
		return measure.Evidence{}, err
	}
	return Wire(raw)
}

// BindInitData compares the personalization value with the digest of the
// init-data document, nil for none (guest-protocol 5.3). A difference wraps
// [initdata.ErrField].
func (a *Attester) BindInitData(ctx context.Context, digest []byte) error {
	_, token, err := a.obtain(ctx, measure.ReportData{})
	if err != nil {
		return fmt.Errorf("read the personalization value: %w", err)
	}
	return initdata.CompareField(token.Realm.Personalization[:], digest)
}

func (a *Attester) obtain(ctx context.Context, data measure.ReportData) ([]byte, *Token, error) {
	rep, err := a.reports.Get(ctx, tsm.Request{Provider: tsm.ProviderCCA, InBlob: data[:]})
	if err != nil {
		return nil, nil, fmt.Errorf("obtain CCA token: %w", err)
	}
	token, err := ParseToken(rep.Out)
	if err != nil {
		return nil, nil, fmt.Errorf("obtain CCA token: %w", err)
	}
	if measure.ReportData(token.Realm.Challenge) != data {
		return nil, nil, errors.New("obtain CCA token: it is over other data than was asked for")
	}
	return rep.Out, token, nil
}
