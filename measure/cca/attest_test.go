package cca

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

// configfs is a kernel whose realm management monitor is the lab's.
func (l *lab) configfs() *tsmtest.Kernel {
	return &tsmtest.Kernel{Provider: tsm.ProviderCCA, Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		token, err := l.sim.token(measure.ReportData(a.InBlob), tagCMW)
		return tsmtest.Blobs{Out: token}, err
	}}
}

// What the attester obtains, the verifier accepts.
func TestAttester(t *testing.T) {
	l := newLab(t)
	kernel := l.configfs()
	a, err := NewAttester(kernel)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Evidence(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.verifier().Verify(t.Context(), ev, l.expected()); err != nil {
		t.Error(err)
	}
	if err := a.BindInitData(t.Context(), l.launch.InitDataDigest); err != nil {
		t.Error(err)
	}
	for name, digest := range map[string][]byte{"another document": []byte("other"), "no document": nil} {
		if err := a.BindInitData(t.Context(), digest); !errors.Is(err, initdata.ErrField) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kernel.OpenReports() != 0 {
		t.Error("a report directory is left")
	}
}

func TestAttesterRefusals(t *testing.T) {
	l := newLab(t)
	blob := func(f func() ([]byte, error)) *tsmtest.Kernel {
		return &tsmtest.Kernel{Provider: tsm.ProviderCCA, Report: func(tsmtest.Attributes) (tsmtest.Blobs, error) {
			token, err := f()
			return tsmtest.Blobs{Out: token}, err
		}}
	}
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		want   string
	}{
		"no configfs":    {&tsmtest.Kernel{}, "no report provider"},
		"another TEE":    {&tsmtest.Kernel{Provider: tsm.ProviderTDX}, `the provider is "tdx_guest"`},
		"no token":       {blob(func() ([]byte, error) { return []byte("token"), nil }), "CCA token"},
		"an old token":   {blob(func() ([]byte, error) { return l.sim.token(measure.ReportData{1}, tagCMW) }), "over other data"},
		"a driver fails": {blob(func() ([]byte, error) { return nil, errors.New("no granule") }), "no granule"},
	} {
		a, err := NewAttester(tc.kernel)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Evidence(t.Context(), challenge); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, err := NewAttester(nil); err == nil {
		t.Error("no kernel is needed")
	}
}

var _ measure.Attester = (*Attester)(nil)
