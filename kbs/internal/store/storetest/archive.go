package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/archive"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/group"
)

// RunArchive checks that a store moves into another one of any engine, whole
// or not at all. Each call gives a new, empty store.
func RunArchive(t *testing.T, openFrom, openInto func(t *testing.T) store.Store) {
	from, into := fixture{t, openFrom(t)}, fixture{t, openInto(t)}
	defer func() {
		if err := errors.Join(from.st.Close(), into.st.Close()); err != nil {
			t.Error(err)
		}
	}()
	for i := range 30 {
		from.mustPut(fmt.Sprintf("a/%02d", i), fmt.Sprint("value\x00\xff", i), store.Any)
		from.mustPut(fmt.Sprintf("a/%02d", i%7), "again", store.Any)
	}
	from.putUntil("s/x", noon)
	from.mustPut("d/gone", "", store.Any)
	from.mustPut("d/gone", "", store.Any)
	if err := from.update(func(tx store.Tx) error { return tx.Delete("d/gone", 2) }); err != nil {
		t.Fatal(err)
	}
	raw := dump(t, from.st)

	for name, broken := range map[string][]byte{"cut": raw[:len(raw)-1], "altered": altered(raw)} {
		if _, err := archive.Restore(t.Context(), bytes.NewReader(broken), archived(t, into.st), false); !errors.Is(err, archive.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if keys := into.list("", "", 10); keys != nil {
			t.Fatalf("%s: a damaged archive left %q", name, keys)
		}
	}
	if _, err := archive.Restore(t.Context(), bytes.NewReader(raw), archived(t, into.st), false); err != nil {
		t.Fatal(err)
	}
	if again := dump(t, into.st); !bytes.Equal(again, raw) {
		t.Errorf("%d bytes came back as %d others", len(raw), len(again))
	}
	if v := into.mustPut("d/gone", "", store.Absent); v != 3 {
		t.Errorf("a deleted key starts again at %d", v)
	}

	if _, err := archive.Restore(t.Context(), bytes.NewReader(raw), archived(t, into.st), false); !errors.Is(err, archive.ErrNotEmpty) {
		t.Errorf("restored over what was there: %v", err)
	}
	if _, err := archive.Restore(t.Context(), bytes.NewReader(altered(raw)), archived(t, into.st), true); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("restored a damaged archive: %v", err)
	}
	into.want("d/gone", "", 3)
	also := group.Row{Key: "a/00", Version: 77, Modified: noon.UnixMicro(), Value: []byte("also")}
	if _, err := archive.Restore(t.Context(), bytes.NewReader(raw), archived(t, into.st), true, also); err != nil {
		t.Fatal(err)
	}
	into.gone("d/gone")
	into.want("a/00", "also", 77)
}

func archived(t *testing.T, st store.Store) archive.Store {
	t.Helper()
	a, err := archive.Of(st)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func dump(t *testing.T, st store.Store) []byte {
	t.Helper()
	var out bytes.Buffer
	c, err := archive.Write(t.Context(), &out, archive.Header{Created: noon, Program: "test"}, archived(t, st))
	if err != nil || c.Bytes != int64(out.Len()) {
		t.Fatalf("%+v: %v", c, err)
	}
	if h, checked, err := archive.Check(bytes.NewReader(out.Bytes())); err != nil || checked != c || !h.Created.Equal(noon) || h.Program != "test" {
		t.Errorf("wrote %+v, read %+v %+v: %v", c, h, checked, err)
	}
	return out.Bytes()
}

// altered changes the last record, after all the others were read.
func altered(raw []byte) []byte {
	out := bytes.Clone(raw)
	out[bytes.LastIndex(out, []byte("value of s/x"))]++
	return out
}
