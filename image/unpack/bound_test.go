package unpack

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestBound(t *testing.T) {
	for name, tt := range map[string]struct {
		limit, length int64
		refused       bool
	}{
		"shorter":    {1000, 999, false},
		"longer":     {1000, 1001, true},
		"default":    {0, 1 << 20, false},
		"no archive": {1, 0, false},
	} {
		n, err := io.Copy(io.Discard, Limits{Archive: tt.limit}.Bound(strings.NewReader(strings.Repeat("x", int(tt.length)))))
		_, format := errors.AsType[*FormatError](err)
		if format != tt.refused || !format && (err != nil || n != tt.length) || tt.limit > 0 && n > tt.limit {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	broken := errors.New("broken")
	if _, err := io.Copy(io.Discard, Limits{}.Bound(failing{broken})); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
