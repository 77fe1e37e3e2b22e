package fields

import (
	"errors"
	"testing"
)

var errShort = errors.New("too short")

func TestBothByteOrders(t *testing.T) {
	raw := []byte{1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4}
	for _, test := range []struct {
		big  bool
		want [4]uint64
	}{
		{true, [4]uint64{1, 2, 3, 4}},
		{false, [4]uint64{1, 2 << 8, 3 << 24, 4 << 56}},
	} {
		r := Reader{Buf: raw, Big: test.big, Truncated: errShort}
		got := [4]uint64{uint64(r.U8()), uint64(r.U16()), uint64(r.U32()), r.U64()}
		if got != test.want || r.Err != nil || r.At != len(raw) {
			t.Errorf("big %v: %x, %v, at %d; want %x", test.big, got, r.Err, r.At, test.want)
		}
	}
}

func TestAMissingFieldEndsTheReading(t *testing.T) {
	for _, n := range []int{-1, 4, 1 << 40} {
		r := Reader{Buf: []byte{1, 2, 3}, Truncated: errShort}
		if b := r.Take(n); b != nil || !errors.Is(r.Err, errShort) {
			t.Errorf("%d bytes: %x, %v", n, b, r.Err)
		}
		if got := r.U8(); got != 0 || r.At != 0 {
			t.Errorf("after an error: %d, at %d", got, r.At)
		}
	}
}

func TestWhatIsTakenCannotGrowIntoTheRest(t *testing.T) {
	raw := []byte{1, 2, 3}
	r := Reader{Buf: raw, Truncated: errShort}
	_ = append(r.Take(1), 9)
	if raw[1] != 2 {
		t.Error("appending to a field wrote into the next")
	}
}
