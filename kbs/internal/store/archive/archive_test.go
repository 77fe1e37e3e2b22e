package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// items is a store that is a list.
type items []Item

func (s *items) Export(_ context.Context, emit func(Item) error) error {
	for _, i := range *s {
		if err := emit(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *items) Import(_ context.Context, _ bool, next func() (Item, error)) error {
	for {
		i, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		*s = append(*s, i)
	}
}

func write(t testing.TB, h Header, s items) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := Write(context.Background(), &out, h, &s); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sample(t testing.TB) []byte {
	return write(t, Header{Created: noon, Program: "kbs test"}, items{
		{Lane: 3, Version: 7}, {Lane: 4, Version: 1},
		{Row: &group.Row{Key: "a", Version: 1, Modified: 5}}, {Row: &group.Row{Key: "b", Version: 2, Expires: 9, Value: []byte("value")}},
	})
}

// Each byte matters.
func TestDamageIsFound(t *testing.T) {
	raw := sample(t)
	if _, c, err := Check(bytes.NewReader(raw)); err != nil || c.Floors != 2 || c.Records != 2 || c.Bytes != int64(len(raw)) {
		t.Fatalf("%+v, %v", c, err)
	}
	for i := range raw {
		altered := bytes.Clone(raw)
		altered[i] ^= 0x40
		if _, _, err := Check(bytes.NewReader(altered)); err == nil {
			t.Errorf("byte %d was altered unseen", i)
		}
		if _, _, err := Check(bytes.NewReader(raw[:i])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut after byte %d: %v", i, err)
		}
	}
	if _, _, err := Check(bytes.NewReader(append(bytes.Clone(raw), 0))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
}

func TestOrderIsKept(t *testing.T) {
	row := func(key string) Item { return Item{Row: &group.Row{Key: key, Version: 1}} }
	for name, s := range map[string]items{
		"a key twice":            {row("a"), row("a")},
		"keys in disorder":       {row("b"), row("a")},
		"lanes in disorder":      {{Lane: 2, Version: 1}, {Lane: 1, Version: 1}},
		"a lane beyond the last": {{Lane: group.Lanes, Version: 1}},
		"a floor after a record": {row("a"), {Lane: 1, Version: 1}},
		"no key":                 {row("")},
		"a bad key":              {row("a\x00")},
		"no version":             {{Row: &group.Row{Key: "a"}}},
		"no floor":               {{Lane: 1}},
		"a huge value":           {{Row: &group.Row{Key: "a", Version: 1, Value: make([]byte, maxFrame)}}},
	} {
		if _, _, err := Check(bytes.NewReader(write(t, Header{Created: noon}, s))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out bytes.Buffer
	if _, err := Write(t.Context(), &out, Header{Program: strings.Repeat("x", 256)}, &items{}); err == nil {
		t.Error("a long name was written")
	}
}

func TestOtherVersions(t *testing.T) {
	raw := sample(t)
	raw[len(magic)+1] = 2
	if _, err := NewReader(bytes.NewReader(raw)); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a later format: %v", err)
	}
}

// Accepted means: the same store, written again, gives the same bytes.
func FuzzReader(f *testing.F) {
	f.Add(sample(f))
	f.Add(write(f, Header{Created: noon}, nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got items
		r, err := NewReader(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if _, err := Restore(context.Background(), bytes.NewReader(raw), &got, false); err != nil {
			return
		}
		if again := write(t, r.Header, got); !bytes.Equal(again, raw) {
			t.Fatalf("accepted %x, which means %x", raw, again)
		}
	})
}
