package tsm_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

func echo(a tsmtest.Attributes) (tsmtest.Blobs, error) {
	text := strings.Join([]string{string(a.InBlob), a.PrivLevel, a.ServiceProvider, a.ServiceGUID, a.Manifest}, "|")
	return tsmtest.Blobs{Out: []byte(text), Aux: []byte("aux"), Manifest: []byte("manifest")}, nil
}

func level(n uint8) *uint8 { return &n }

func TestReport(t *testing.T) {
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		req    tsm.Request
		want   tsm.Report
	}{
		"TDX": {
			&tsmtest.Kernel{Provider: "tdx_guest"}, tsm.Request{Provider: "tdx_guest"},
			tsm.Report{Out: []byte("data||||")},
		},
		"SNP at VMPL 0": {
			&tsmtest.Kernel{Provider: "sev_guest", Floor: level(0)}, tsm.Request{Provider: "sev_guest"},
			tsm.Report{Out: []byte("data||||"), Aux: []byte("aux")},
		},
		"SNP above an SVSM": {
			&tsmtest.Kernel{Provider: "sev_guest", Floor: level(2)}, tsm.Request{Provider: "sev_guest"},
			tsm.Report{Out: []byte("data|2|||"), Aux: []byte("aux")},
		},
		"SNP for a level": {
			&tsmtest.Kernel{Provider: "sev_guest", Floor: level(0)}, tsm.Request{Provider: "sev_guest", PrivLevel: level(3)},
			tsm.Report{Out: []byte("data|3|||"), Aux: []byte("aux")},
		},
		"SVSM": {
			&tsmtest.Kernel{Provider: "sev_guest", Floor: level(2)},
			tsm.Request{Provider: "sev_guest", Service: &tsm.Service{Provider: "svsm", GUID: "guid", ManifestVersion: "1"}},
			tsm.Report{Out: []byte("data|2|svsm|guid|1"), Aux: []byte("aux"), Manifest: []byte("manifest")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.kernel.Report = echo
			tc.req.InBlob = []byte("data")
			got, err := tsm.Reports{Kernel: tc.kernel}.Get(t.Context(), tc.req)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Out, tc.want.Out) || !bytes.Equal(got.Aux, tc.want.Aux) || !bytes.Equal(got.Manifest, tc.want.Manifest) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if n := tc.kernel.OpenReports(); n != 0 {
				t.Errorf("%d report directories are left behind", n)
			}
		})
	}
}

func TestReportRefusals(t *testing.T) {
	good := tsm.Request{Provider: "tdx_guest", InBlob: []byte("data")}
	for name, tc := range map[string]struct {
		kernel *tsmtest.Kernel
		req    tsm.Request
		is     error
		text   string
	}{
		"no configfs":      {&tsmtest.Kernel{}, good, tsm.ErrNoProvider, ""},
		"no driver":        {&tsmtest.Kernel{Configfs: true}, good, tsm.ErrNoProvider, ""},
		"other platform":   {&tsmtest.Kernel{Provider: "sev_guest"}, good, nil, `"sev_guest", want "tdx_guest"`},
		"nothing to sign":  {&tsmtest.Kernel{Provider: "tdx_guest"}, tsm.Request{Provider: "tdx_guest"}, nil, "1 to 64"},
		"too much to sign": {&tsmtest.Kernel{Provider: "tdx_guest"}, tsm.Request{Provider: "tdx_guest", InBlob: make([]byte, 65)}, nil, "1 to 64"},
		"level below the floor": {
			&tsmtest.Kernel{Provider: "sev_guest", Floor: level(2)},
			tsm.Request{Provider: "sev_guest", InBlob: []byte("x"), PrivLevel: level(0)}, syscall.EINVAL, "",
		},
		"no levels here": {
			&tsmtest.Kernel{Provider: "tdx_guest"},
			tsm.Request{Provider: "tdx_guest", InBlob: []byte("x"), PrivLevel: level(0)}, fs.ErrNotExist, "privlevel",
		},
		"no services here": {
			&tsmtest.Kernel{Provider: "tdx_guest"},
			tsm.Request{Provider: "tdx_guest", InBlob: []byte("x"), Service: &tsm.Service{Provider: "svsm"}}, fs.ErrNotExist, "service_provider",
		},
		"driver fails": {&tsmtest.Kernel{Provider: "tdx_guest", Report: func(tsmtest.Attributes) (tsmtest.Blobs, error) {
			return tsmtest.Blobs{}, syscall.EIO
		}}, good, syscall.EIO, ""},
		"empty report": {&tsmtest.Kernel{Provider: "tdx_guest", Report: func(tsmtest.Attributes) (tsmtest.Blobs, error) {
			return tsmtest.Blobs{}, nil
		}}, good, nil, "empty report"},
		"endless report": {&tsmtest.Kernel{Provider: "tdx_guest", Report: func(tsmtest.Attributes) (tsmtest.Blobs, error) {
			return tsmtest.Blobs{Out: make([]byte, tsm.MaxBlob+1)}, nil
		}}, good, tsm.ErrTooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.kernel.Report == nil {
				tc.kernel.Report = echo
			}
			rep, err := tsm.Reports{Kernel: tc.kernel}.Get(t.Context(), tc.req)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%q, %v; want %v and %q", rep.Out, err, tc.is, tc.text)
			}
			if rep.Out != nil || tc.kernel.OpenReports() != 0 {
				t.Error("something is left of it")
			}
		})
	}
}

// Another process that writes into our directory, before or after the driver
// made the report, must not give us the answer to its question.
func TestReportRace(t *testing.T) {
	for _, at := range []string{"outblob", "auxblob", "generation"} {
		t.Run(at, func(t *testing.T) {
			k := &tsmtest.Kernel{Provider: "tdx_guest", Report: echo}
			k.Before = func(op, name string) error {
				if op == "read" && strings.HasSuffix(name, at) {
					before := k.Before
					k.Before = nil
					defer func() { k.Before = before }()
					return k.WriteFile(strings.TrimSuffix(name, at)+"inblob", []byte("evil"))
				}
				return nil
			}
			if rep, err := (tsm.Reports{Kernel: k}).Get(t.Context(), tsm.Request{Provider: "tdx_guest", InBlob: []byte("data")}); !errors.Is(err, tsm.ErrRaced) {
				t.Errorf("got %q, %v", rep.Out, err)
			}
		})
	}
}

func TestBusyDevice(t *testing.T) {
	busy := 3
	k := &tsmtest.Kernel{Provider: "tdx_guest", Report: func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		if busy--; busy >= 0 {
			return tsmtest.Blobs{}, syscall.EBUSY
		}
		return echo(a)
	}}
	waits := 0
	r := tsm.Reports{Kernel: k, Wait: func(context.Context, time.Duration) error { waits++; return nil }}
	req := tsm.Request{Provider: "tdx_guest", InBlob: []byte("data")}
	if rep, err := r.Get(t.Context(), req); err != nil || string(rep.Out) != "data||||" || waits != 3 {
		t.Errorf("%q, %v after %d waits", rep.Out, err, waits)
	}
	busy = 1 << 20
	if _, err := r.Get(t.Context(), req); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a device that stays busy: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.Wait = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if _, err := r.Get(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
}

func TestProvider(t *testing.T) {
	if p, err := (tsm.Reports{Kernel: &tsmtest.Kernel{Provider: "arm_cca_guest"}}).Provider(); err != nil || p != tsm.ProviderCCA {
		t.Errorf("%q, %v", p, err)
	}
	if p, err := (tsm.Reports{Kernel: &tsmtest.Kernel{Configfs: true}}).Provider(); !errors.Is(err, tsm.ErrNoProvider) {
		t.Errorf("%q, %v", p, err)
	}
}
