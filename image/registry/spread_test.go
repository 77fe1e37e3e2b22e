package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
)

func someBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

type fetching func(ctx context.Context, from, to int64) (io.ReadCloser, error)

func from(blob []byte) fetching {
	return func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blob[from:to])), nil
	}
}

func TestSpreadIsInOrder(t *testing.T) {
	blob := someBytes(7*pieceSize + 12345)
	for _, lanes := range []int{1, 2, 4} {
		w := newWindow(defaultWindow)
		s := newSpread(t.Context(), w, 1000, int64(len(blob)), lanes, from(blob))
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, blob[1000:]) {
			t.Errorf("%d lanes: %d bytes, %v", lanes, len(got), err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
		if err := s.Close(); err != nil || w.left != 6 {
			t.Errorf("%d of 6 pieces are left, %v", w.left, err)
		}
		if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read after close: %d, %v", n, err)
		}
	}
}

// However slowly it is read, no more than the window is fetched.
func TestSpreadKeepsToItsWindow(t *testing.T) {
	blob := someBytes(12 * pieceSize)
	var asked atomic.Int64
	s := newSpread(t.Context(), newWindow(defaultWindow), 0, int64(len(blob)), 2, func(ctx context.Context, a, b int64) (io.ReadCloser, error) {
		asked.Add(1)
		return from(blob)(ctx, a, b)
	})
	for n := range 6 {
		if _, err := io.ReadFull(s, make([]byte, pieceSize)); err != nil {
			t.Fatal(err)
		}
		if seen := asked.Load(); seen > int64(n+1+3) {
			t.Errorf("%d pieces were asked for when %d were read", seen, n+1)
		}
	}
	if !s.resize(4) {
		t.Fatal("the window has no room for four")
	}
	if s.resize(6) {
		t.Error("the window had room for six lanes")
	}
	if !s.resize(1) {
		t.Fatal("fewer")
	}
	rest, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(rest, blob[6*pieceSize:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	if err := s.Close(); err != nil || s.running != 0 {
		t.Errorf("%d lanes, %v", s.running, err)
	}
}

func TestWindowIsShared(t *testing.T) {
	blob, w := someBytes(2*pieceSize), newWindow(defaultWindow)
	one := newSpread(t.Context(), w, 0, int64(len(blob)), 4, from(blob))
	if two := newSpread(t.Context(), w, 0, int64(len(blob)), 2, from(blob)); two != nil {
		t.Error("another blob found room for two")
	}
	_ = one.Close()
	two := newSpread(t.Context(), w, 0, int64(len(blob)), 2, from(blob))
	if two == nil {
		t.Fatal("there is room when the first is closed")
	}
	_ = two.Close()
}

// What lies before a piece that fails is given, then its error, and nothing of
// what lies behind.
func TestSpreadEndsAtAFailure(t *testing.T) {
	blob, broken := someBytes(8*pieceSize), errors.New("broken")
	for name, tt := range map[string]struct {
		fetch fetching
		good  int
		want  error
	}{
		"refused": {func(ctx context.Context, a, b int64) (io.ReadCloser, error) {
			if a == 3*pieceSize {
				return nil, broken
			}
			return from(blob)(ctx, a, b)
		}, 3 * pieceSize, broken},
		"broken off": {func(ctx context.Context, a, b int64) (io.ReadCloser, error) {
			if a == 3*pieceSize {
				return io.NopCloser(io.MultiReader(bytes.NewReader(blob[a:a+100]), failing{broken})), nil
			}
			return from(blob)(ctx, a, b)
		}, 3*pieceSize + 100, broken},
		"too short": {func(ctx context.Context, a, b int64) (io.ReadCloser, error) {
			if a == 3*pieceSize {
				return io.NopCloser(bytes.NewReader(blob[a : a+100])), nil
			}
			return from(blob)(ctx, a, b)
		}, 3*pieceSize + 100, io.ErrUnexpectedEOF},
		"too long": {func(ctx context.Context, a, b int64) (io.ReadCloser, error) {
			if a == 7*pieceSize {
				return from(blob)(ctx, a, b)
			}
			return from(blob)(ctx, a, b+1)
		}, -1, errNoLanes},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpread(t.Context(), newWindow(defaultWindow), 0, int64(len(blob)), 2, tt.fetch)
			defer func() { _ = s.Close() }()
			got, err := io.ReadAll(s)
			if !errors.Is(err, tt.want) || !bytes.HasPrefix(blob, got) || (tt.good >= 0 && len(got) != tt.good) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if _, again := s.Read(make([]byte, 1)); again == nil || errors.Is(again, io.EOF) {
				t.Errorf("then %v", again)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Close does not wait for a network.
func TestSpreadIsAbandoned(t *testing.T) {
	hang := func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := newSpread(t.Context(), newWindow(defaultWindow), 0, 20*pieceSize, 4, hang)
	if s.begin(systemClock{}, 1) {
		t.Error("it has begun")
	}
	_ = s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	s = newSpread(ctx, newWindow(defaultWindow), 0, 20*pieceSize, 4, hang)
	cancel()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_ = s.Close()
}
