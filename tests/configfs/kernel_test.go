package configfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/tsm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tsm/tsmtest"
)

func echo(a tsmtest.Attributes) (tsmtest.Blobs, error) {
	return tsmtest.Blobs{Out: []byte(string(a.InBlob) + "|" + a.PrivLevel), Aux: []byte("aux")}, nil
}

func fails(errno syscall.Errno) func(tsmtest.Attributes) (tsmtest.Blobs, error) {
	return func(tsmtest.Attributes) (tsmtest.Blobs, error) { return tsmtest.Blobs{}, errno }
}

func level(n uint8) *uint8 { return &n }

var linux = tsm.Linux{Root: "/"}

// The kernel of package tsmtest, on which all attesters are tested, does what
// Linux does.
func TestFakeIsLikeLinux(t *testing.T) {
	needsKernel(t)
	data := []byte("data")
	for name, tt := range map[string]struct {
		platform string // "" for no driver
		floor    *uint8 // nil where there are no levels
		report   func(tsmtest.Attributes) (tsmtest.Blobs, error)
		req      tsm.Request
		out      string
		aux      string
		is       error
		says     string
	}{
		"TDX":           {platform: tsm.ProviderTDX, req: tsm.Request{Provider: tsm.ProviderTDX}, out: "data|"},
		"SNP at VMPL 0": {platform: tsm.ProviderSNP, floor: level(0), req: tsm.Request{Provider: tsm.ProviderSNP}, out: "data|", aux: "aux"},
		"SNP above an SVSM": {
			platform: tsm.ProviderSNP, floor: level(2), req: tsm.Request{Provider: tsm.ProviderSNP}, out: "data|2", aux: "aux",
		},
		"SNP for a level": {
			platform: tsm.ProviderSNP, floor: level(0), req: tsm.Request{Provider: tsm.ProviderSNP, PrivLevel: level(3)}, out: "data|3", aux: "aux",
		},
		"no driver":      {req: tsm.Request{Provider: tsm.ProviderTDX}, is: tsm.ErrNoProvider},
		"other platform": {platform: tsm.ProviderSNP, floor: level(0), req: tsm.Request{Provider: tsm.ProviderTDX}, says: `"sev_guest", want "tdx_guest"`},
		"level below the floor": {
			platform: tsm.ProviderSNP, floor: level(2), req: tsm.Request{Provider: tsm.ProviderSNP, PrivLevel: level(0)}, is: syscall.EINVAL,
		},
		"no levels here": {
			platform: tsm.ProviderTDX, req: tsm.Request{Provider: tsm.ProviderTDX, PrivLevel: level(0)}, is: fs.ErrNotExist, says: "privlevel",
		},
		"driver fails": {platform: tsm.ProviderTDX, report: fails(syscall.EIO), req: tsm.Request{Provider: tsm.ProviderTDX}, is: syscall.EIO},
		"empty report": {
			platform: tsm.ProviderTDX, report: func(tsmtest.Attributes) (tsmtest.Blobs, error) { return tsmtest.Blobs{}, nil },
			req: tsm.Request{Provider: tsm.ProviderTDX}, says: "empty report",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.report == nil {
				tt.report = echo
			}
			if tt.platform != "" {
				floor := 0
				if tt.floor != nil {
					floor = int(*tt.floor)
				}
				provide(t, tt.platform, floor, tt.report)
			}
			tt.req.InBlob = data
			fake := &tsmtest.Kernel{Provider: tt.platform, Configfs: true, Floor: tt.floor, Report: tt.report}
			for who, k := range map[string]tsm.Kernel{"Linux": linux, "the fake": fake} {
				got, err := tsm.Reports{Kernel: k}.Get(t.Context(), tt.req)
				switch wanted := tt.is != nil || tt.says != ""; {
				case !wanted && (err != nil || string(got.Out) != tt.out || string(got.Aux) != tt.aux):
					t.Errorf("%s: %q, %q, %v", who, got.Out, got.Aux, err)
				case wanted && (err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says)):
					t.Errorf("%s: %q, %v; want %v and %q", who, got.Out, err, tt.is, tt.says)
				}
			}
			nothingLeft(t)
		})
	}
}

func nothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir("/" + tsm.ReportDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// meddler is the kernel with somebody who writes another input beside us, right
// before a file is read.
type meddler struct {
	tsm.Linux
	before string
}

func (m *meddler) ReadFile(name string, limit int) ([]byte, error) {
	if m.before != "" && strings.HasSuffix(name, m.before) {
		target := strings.TrimSuffix(name, m.before) + "inblob"
		m.before = ""
		if err := m.WriteFile(target, []byte("evil")); err != nil {
			return nil, err
		}
	}
	return m.Linux.ReadFile(name, limit)
}

// Who may write to our directory cannot make us take the answer to its question.
func TestRace(t *testing.T) {
	needsKernel(t)
	provide(t, tsm.ProviderSNP, 0, echo)
	for _, before := range []string{"outblob", "auxblob", "generation"} {
		rep, err := tsm.Reports{Kernel: &meddler{linux, before}}.Get(t.Context(), tsm.Request{Provider: tsm.ProviderSNP, InBlob: []byte("data")})
		if !errors.Is(err, tsm.ErrRaced) {
			t.Errorf("before %s: %q, %v", before, rep.Out, err)
		}
	}
	nothingLeft(t)
}

// A driver that is busy is asked again.
func TestBusy(t *testing.T) {
	needsKernel(t)
	busy := 3
	provide(t, tsm.ProviderTDX, 0, func(a tsmtest.Attributes) (tsmtest.Blobs, error) {
		if busy--; busy >= 0 {
			return tsmtest.Blobs{}, syscall.EBUSY
		}
		return echo(a)
	})
	rep, err := tsm.Reports{Kernel: linux}.Get(context.Background(), tsm.Request{Provider: tsm.ProviderTDX, InBlob: []byte("data")})
	if err != nil || string(rep.Out) != "data|" {
		t.Errorf("%q, %v", rep.Out, err)
	}
}
