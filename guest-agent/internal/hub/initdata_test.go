package hub

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// What the guest was launched with is confirmed, as often as somebody asks, and
// nothing else is bound in its place.
func TestBindInitData(t *testing.T) {
	p := simulated(t)
	digest := p.doc.Digest()
	other := bytes.Clone(digest)
	other[len(other)-1] ^= 1
	for name, c := range map[string]struct {
		attester measure.Attester
		launched []byte
		asked    []byte
		want     fault.Code // empty: confirmed
	}{
		"the same":           {p.attester, digest, digest, ""},
		"another":            {p.attester, digest, other, fault.InitDataMismatch},
		"half of it":         {p.attester, digest, digest[:16], fault.InitDataMismatch},
		"nothing":            {p.attester, digest, nil, fault.InvalidRequest},
		"launched without":   {p.attester, nil, digest, fault.InitDataMismatch},
		"without a platform": {nil, nil, digest, fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var journal bytes.Buffer
			h, err := New(Config{Attester: c.attester, InitData: c.launched, ImageDir: t.TempDir(), Journal: &journal, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = h.Close() })
			for range 2 {
				err = h.BindInitData(t.Context(), c.asked)
				if c.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				f, ok := errors.AsType[*fault.Fault](err)
				if !ok || f.Code != c.want || f.Ticket == "" || journal.Len() == 0 {
					t.Errorf("%v, journal of %d bytes; want %s with a ticket", err, journal.Len(), c.want)
				}
			}
		})
	}
}
