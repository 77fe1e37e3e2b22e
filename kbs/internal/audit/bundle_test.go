package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// prove makes the bundle of one entry, as a client does.
func (w *world) prove(t testing.TB, index int64) Bundle {
	t.Helper()
	b := Bundle{Checkpoint: string(w.checkpoint(t))}
	c, err := parseBody(b.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := w.log.Entries(t.Context(), index, 1)
	if err != nil {
		t.Fatal(err)
	}
	b.Entry = entries[0]
	if b.Proof, err = w.log.Inclusion(t.Context(), index, c.Size); err != nil {
		t.Fatal(err)
	}
	k, err := w.log.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Handovers = k.Handovers
	return b
}

func TestBundle(t *testing.T) {
	w, foreign := newWorld(t), newWorld(t)
	w.fill(t, 6)
	w.rotate(t, w.log)
	w.fill(t, 5)
	foreign.fill(t, 6)
	for i := range int64(12) {
		raw, err := w.prove(t, i).Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := b.Verify(w.trust); err != nil || c.Size != 12 {
			t.Errorf("entry %d: %+v, %v", i, c, err)
		}
		if _, err := b.Verify(foreign.trust); err == nil {
			t.Errorf("entry %d is in the log of another key", i)
		}
	}
	good := w.prove(t, 4)
	for name, spoil := range map[string]func(*Bundle){
		"another entry":      func(b *Bundle) { b.Entry = w.prove(t, 3).Entry },
		"an edited entry":    func(b *Bundle) { b.Entry = bytes.Replace(b.Entry, []byte("allow"), []byte("denyy"), 1) },
		"no entry":           func(b *Bundle) { b.Entry = json.RawMessage(`{}`) },
		"a short proof":      func(b *Bundle) { b.Proof = b.Proof[1:] },
		"a long proof":       func(b *Bundle) { b.Proof = append(b.Proof[:len(b.Proof):len(b.Proof)], make([]byte, 32)) },
		"hashes of odd size": func(b *Bundle) { b.Proof = [][]byte{{1}} },
		"no hand-over":       func(b *Bundle) { b.Handovers = nil },
		"of another log":     func(b *Bundle) { *b = foreign.prove(t, 4) },
		"another checkpoint": func(b *Bundle) { b.Checkpoint = string(foreign.checkpoint(t)) },
		"an edited size":     func(b *Bundle) { b.Checkpoint = strings.Replace(b.Checkpoint, "\n12\n", "\n11\n", 1) },
	} {
		b := good
		spoil(&b)
		if c, err := b.Verify(w.trust); err == nil {
			t.Errorf("%s: proven by %+v", name, c)
		}
	}
	for name, raw := range map[string]string{
		"empty": "", "another type": `{"media_type":"x","entry":{},"proof":[],"checkpoint":"x"}`, "unknown member": `{"x":1}`,
		"nothing in it": `{"media_type":"` + BundleType + `"}`, "too long": strings.Repeat(" ", MaxBundle+1),
	} {
		if _, err := ParseBundle([]byte(raw)); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseBundle(f *testing.F) {
	w := newWorld(f)
	w.fill(f, 5)
	raw, err := w.prove(f, 3).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"media_type":"` + BundleType + `","entry":{"index":0},"proof":[],"checkpoint":"x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBundle(raw)
		if err != nil {
			return
		}
		if _, err := b.Verify(w.trust); err != nil {
			return
		}
		// Whatever else was changed, what is proven is an entry of the log.
		leaf, index, err := readEntry(b.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if entries, err := w.log.Entries(t.Context(), index, 1); err != nil || !bytes.Equal(entries[0], leaf) {
			t.Fatalf("%s was proven, and the log has %s, %v", leaf, entries, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	key := []byte("key")
	var end tip
	for range 5 {
		r := newRecord(end, []byte(`{"index":0}`))
		f.Add(r.index, r.sealed(key))
		end = r.tip()
	}
	f.Fuzz(func(t *testing.T, index int64, raw []byte) {
		if index < 0 {
			return
		}
		r, err := parseRecord(store.Record{Key: entryKey(index), Value: raw})
		if err != nil {
			return
		}
		_ = r.whole()
		if got := r.tip(); got.size != index+1 || len(r.peaks()) > 63 {
			t.Fatalf("entry %d ends a log of %d", index, got.size)
		}
		if r.authentic(key) == nil && !bytes.Equal(r.sealed(key), raw) {
			t.Fatalf("accepted %x, but it means %x", raw, r.sealed(key))
		}
	})
}
