package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// stored reads one record.
func stored(tx store.Tx, i int64) (record, error) {
	found, err := tx.Get(entryKey(i))
	if err != nil {
		return record{}, err
	}
	return parseRecord(found)
}

// put writes a leaf in the place of another, as somebody does who knows the
// layout and has no key.
func put(tx store.Tx, i int64, leaf []byte) error {
	r, err := stored(tx, i)
	if err != nil {
		return err
	}
	raw := append([]byte{layout}, r.mac...)
	_, err = tx.Put(entryKey(i), append(append(raw, r.hashes...), leaf...), store.Any)
	return err
}

// rehash is put with the hash of the leaf put right.
func rehash(tx store.Tx, i int64, leaf []byte) error {
	r, err := stored(tx, i)
	if err != nil {
		return err
	}
	hash := tlog.RecordHash(leaf)
	copy(r.hashes, hash[:])
	raw := append([]byte{layout}, r.mac...)
	_, err = tx.Put(entryKey(i), append(append(raw, r.hashes...), leaf...), store.Any)
	return err
}

func edit(index int64, from, to string) func(store.Tx) error {
	return func(tx store.Tx) error {
		r, err := stored(tx, index)
		if err != nil {
			return err
		}
		changed := strings.Replace(string(r.leaf), from, to, 1)
		if changed == string(r.leaf) {
			return fmt.Errorf("nothing to edit in %s", r.leaf)
		}
		return put(tx, index, []byte(changed))
	}
}

func entry(tx store.Tx, i int64) []byte {
	r, err := stored(tx, i)
	if err != nil {
		return nil
	}
	return r.leaf
}

// Whoever writes to the store behind the log's back is found, and so is the
// first entry that cannot be believed.
func TestVerifyNamesTheBadEntry(t *testing.T) {
	const size = 21
	last := int64(size - 1)
	tests := []struct {
		name  string
		do    func(store.Tx) error
		first int64
	}{
		{"edited", edit(13, "allow", "denyy"), 13},
		{"edited first", edit(0, "allow", "denyy"), 0},
		{"edited last", edit(last, "allow", "denyy"), last},
		{"edited two", func(tx store.Tx) error {
			return errors.Join(edit(17, "allow", "denyy")(tx), edit(6, "allow", "denyy")(tx))
		}, 6},
		{"index edited", edit(4, `"index":4`, `"index":5`), 4},
		{"dropped", func(tx store.Tx) error { return tx.Delete(entryKey(8), store.Any) }, 8},
		{"dropped last", func(tx store.Tx) error { return tx.Delete(entryKey(last), store.Any) }, last},
		{"swapped", func(tx store.Tx) error {
			a, b := entry(tx, 3), entry(tx, 11)
			return errors.Join(put(tx, 3, b), put(tx, 11, a))
		}, 3},
		{"swapped, with the indexes put right", func(tx store.Tx) error {
			a := strings.Replace(string(entry(tx, 3)), `"index":3`, `"index":11`, 1)
			b := strings.Replace(string(entry(tx, 11)), `"index":11`, `"index":3`, 1)
			return errors.Join(put(tx, 3, []byte(b)), put(tx, 11, []byte(a)))
		}, 3},
		{"inserted, the rest moved up", func(tx store.Tx) error {
			for i := last; i >= 9; i-- {
				moved := strings.Replace(string(entry(tx, i)), fmt.Sprintf(`"index":%d`, i), fmt.Sprintf(`"index":%d`, i+1), 1)
				if i == last { // the record beyond has the hashes of none
					raw := append(make([]byte, 1+sha256.Size+(1+bits.OnesCount64(uint64(i+1)))*tlog.HashSize), moved...)
					raw[0] = layout
					if _, err := tx.Put(entryKey(i+1), raw, store.Absent); err != nil {
						return err
					}
				} else if err := put(tx, i+1, []byte(moved)); err != nil {
					return err
				}
			}
			return put(tx, 9, []byte(`{"decision":"allow","index":9,"kind":"forged","time":"2031-02-03T03:05:06Z"}`))
		}, 9},
		{"not JSON", func(tx store.Tx) error { return put(tx, 5, []byte("{")) }, 5},
		{"rehashed", func(tx store.Tx) error {
			return rehash(tx, 10, []byte(strings.Replace(string(entry(tx, 10)), "allow", "denyy", 1)))
		}, 10},
		{"the record cut", func(tx store.Tx) error {
			_, err := tx.Put(entryKey(5), []byte{layout, 1, 2}, store.Any)
			return err
		}, 5},
		{"two indexes", func(tx store.Tx) error { return put(tx, 5, []byte(`{"index":5,"index":5}`)) }, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(t, size)
			cp := w.checkpoint(t)
			if r, err := w.verify(cp, size); err != nil || r.FirstBad != -1 || r.Entries != size {
				t.Fatalf("before: %+v, %v", r, err)
			}
			w.raw(t, tt.do)
			r, err := w.verify(cp, size)
			if !errors.Is(err, ErrTampered) || r.FirstBad != tt.first {
				t.Fatalf("first bad %d, want %d: %v", r.FirstBad, tt.first, err)
			}
			if _, err := Verify(w.log.All(context.Background(), size), cp, w.trust); !errors.Is(err, ErrTampered) {
				t.Fatalf("without anybody to ask: %v", err)
			}
		})
	}
}

func seq(entries []json.RawMessage) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestVerifyWantsExactlyWhatWasSigned(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 9)
	cp := w.checkpoint(t)
	w.fill(t, 1)
	entries, err := w.log.Entries(context.Background(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(seq(entries), cp, w.trust); !errors.Is(err, ErrTampered) || r.FirstBad != 9 {
		t.Errorf("one too many: %+v, %v", r, err)
	}
	if r, err := Verify(seq(entries[:8]), cp, w.trust); !errors.Is(err, ErrTampered) || r.FirstBad != 8 {
		t.Errorf("one missing at the end: %+v, %v", r, err)
	}
	if _, err := Verify(seq(entries[:9]), cp, w.trust); err != nil {
		t.Errorf("exactly: %v", err)
	}
	broken := errors.New("broken pipe")
	_, err = Verify(func(yield func(json.RawMessage, error) bool) { yield(nil, broken) }, cp, w.trust)
	if !errors.Is(err, broken) || errors.Is(err, ErrTampered) {
		t.Errorf("an error of the source: %v", err)
	}
	// The same entries, as a transport may write them.
	var spaced []json.RawMessage
	for _, e := range entries[:9] {
		b, err := json.Marshal(e) // escapes <, > and &
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(b, e) {
			t.Fatal("the encoder changed nothing, so the test shows nothing")
		}
		spaced = append(spaced, append([]byte(" \n"), b...))
	}
	if _, err := Verify(seq(spaced), cp, w.trust); err != nil {
		t.Errorf("entries that were escaped on their way: %v", err)
	}
}

func TestForgedCheckpoints(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 5)
	good := w.checkpoint(t)
	c, err := ParseCheckpoint(good, w.trust)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(name, text string) []byte {
		skey, _, err := NewKey(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := note.NewSigner(skey)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	own := func(text string) []byte {
		msg, err := note.Sign(&note.Note{Text: text}, w.signer(t))
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	for name, msg := range map[string][]byte{
		"empty":                nil,
		"signed by a namesake": sign(w.trust.Origin(), c.text()),
		"signed by another":    sign("other", c.text()),
		"size changed":         bytes.Replace(good, []byte("\n5\n"), []byte("\n4\n"), 1),
		"unsigned":             []byte(c.text()),
		"of another log":       own("other\n5\n" + c.Root.String() + "\n"),
		"size with a zero":     own(c.Origin + "\n05\n" + c.Root.String() + "\n"),
		"negative size":        own(c.Origin + "\n-5\n" + c.Root.String() + "\n"),
		"short root":           own(c.Origin + "\n5\nAAAA\n"),
		"no root":              own(c.Origin + "\n5\n"),
		"too long":             own(c.text() + strings.Repeat("x\n", maxCheckpoint)),
	} {
		if _, err := w.verify(msg, 5); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %v, want ErrCheckpoint", name, err)
		}
	}
	if _, err := w.verify(own(c.text()+"extension\n"), 5); err != nil {
		t.Errorf("an extension line: %v", err)
	}
	if _, err := Verify(seq(nil), good, Trust{}); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("nobody to trust: %v", err)
	}
}

// wipe removes all records of a log but its checkpoint.
func wipe(tx store.Tx) error {
	rs, err := tx.List(prefixEntry, "", 1000)
	for _, r := range rs {
		err = errors.Join(err, tx.Delete(r.Key, store.Any))
	}
	return err
}

// rewrite makes a whole new log in the store, consistent in itself, with the
// broker's own keys: what somebody can do who has those too.
func rewrite(t *testing.T, w *world, n int) {
	t.Helper()
	w.raw(t, func(tx store.Tx) error {
		if err := wipe(tx); err != nil {
			return err
		}
		for range n {
			if _, err := w.log.AppendTx(tx, api.AuditEntry{Kind: "forged"}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Even somebody who can write entries, but not sign, cannot have a history
// signed that contradicts the last checkpoint. The broker does not even start
// on it.
func TestBrokerDoesNotSignARewrittenLog(t *testing.T) {
	for _, n := range []int{3, 7, 12} {
		w := newWorld(t)
		w.fill(t, 7)
		cp := w.checkpoint(t)
		rewrite(t, w, n)
		if msg, err := w.log.Checkpoint(context.Background()); !errors.Is(err, ErrTampered) {
			t.Errorf("signed %q for a rewritten log of %d entries, %v", msg, n, err)
		}
		if err := w.reopen(); !errors.Is(err, ErrTampered) {
			t.Errorf("opened a rewritten log of %d entries: %v", n, err)
		}
		if _, err := w.verify(cp, int64(n)); !errors.Is(err, ErrTampered) {
			t.Errorf("verified a rewritten log of %d entries: %v", n, err)
		}
	}
}

// thief has the store and knows this code, but not the keys in the ring.
func thief(t *testing.T, w *world) *Log {
	t.Helper()
	other, err := sqlite.Open(filepath.Join(t.TempDir(), "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	own := newRing(t, other)
	mac, err := own.LoadOrCreate(t.Context(), keyRecords, func() (secret.Bytes, error) { return secret.Random(32), nil })
	if err != nil {
		t.Fatal(err)
	}
	return &Log{st: w.st, keeper: &keeper{ring: own}, mac: mac, now: w.log.now, wake: make(chan struct{}, 1)}
}

// Whoever writes to the store without the broker's keys cannot make it go on:
// not with an entry of his own, not with one that was there before.
func TestNobodyElseAppends(t *testing.T) {
	forge := func(t *testing.T, w *world, tx store.Tx, before tip) error {
		t.Helper()
		leaf := fmt.Appendf(nil, `{"decision":"allow","index":%d,"kind":"release","time":"2031-02-03T03:05:06Z"}`, before.size)
		_, err := tx.Put(entryKey(before.size), newRecord(before, leaf).sealed(thief(t, w).mac.Reveal()), store.Any)
		return err
	}
	tests := []struct {
		name string
		do   func(t *testing.T, w *world, tx store.Tx) error
	}{
		{"one more", func(t *testing.T, w *world, tx store.Tx) error {
			end, err := readTip(tx, w.log.mac.Reveal())
			return errors.Join(err, forge(t, w, tx, end))
		}},
		{"another in the place of the last", func(t *testing.T, w *world, tx store.Tx) error {
			r, err := stored(tx, 7)
			return errors.Join(err, forge(t, w, tx, r.tip()))
		}},
		{"a whole log", func(t *testing.T, w *world, tx store.Tx) error {
			var end tip
			for end.size < 12 {
				if err := forge(t, w, tx, end); err != nil {
					return err
				}
				r, err := stored(tx, end.size)
				if err != nil {
					return err
				}
				end = r.tip()
			}
			return nil
		}},
		{"an older record again", func(_ *testing.T, _ *world, tx store.Tx) error {
			r, err := tx.Get(entryKey(5)) // as many peaks as 9 has
			if err == nil {
				_, err = tx.Put(entryKey(9), r.Value, store.Absent)
			}
			return err
		}},
		{"the last leaf edited", func(_ *testing.T, _ *world, tx store.Tx) error { return edit(8, "allow", "denyy")(tx) }},
		{"a peak of the last", func(_ *testing.T, _ *world, tx store.Tx) error {
			r, err := tx.Get(entryKey(8))
			if err == nil {
				r.Value[1+2*32] ^= 1
				_, err = tx.Put(r.Key, r.Value, store.Any)
			}
			return err
		}},
		{"cut off", func(_ *testing.T, _ *world, tx store.Tx) error { return tx.Delete(entryKey(8), store.Any) }},
		{"all gone", func(_ *testing.T, _ *world, tx store.Tx) error { return wipe(tx) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(t, 9)
			cp := w.checkpoint(t)
			w.raw(t, func(tx store.Tx) error { return tt.do(t, w, tx) })
			if e, err := w.log.Append(t.Context(), api.AuditEntry{Kind: "release"}); !errors.Is(err, ErrTampered) {
				t.Errorf("the broker went on with %+v, %v", e, err)
			}
			if msg, err := w.log.Checkpoint(t.Context()); !errors.Is(err, ErrTampered) {
				t.Errorf("the broker signed %q, %v", msg, err)
			}
			if err := w.reopen(); !errors.Is(err, ErrTampered) {
				t.Errorf("the broker started: %v", err)
			}
			if c, err := ParseCheckpoint(cp, w.trust); err != nil || c.Size != 9 {
				t.Error("the checkpoint that was given out before must stand")
			}
		})
	}
}

// A record below the newest one is noticed when the next checkpoint needs it.
func TestBrokerDoesNotSignATreeThatContradictsItself(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 7)
	w.checkpoint(t)
	w.fill(t, 3)
	w.raw(t, func(tx store.Tx) error {
		r, err := tx.Get(entryKey(7)) // completes the node over all eight
		if err != nil {
			return err
		}
		r.Value[1+32] ^= 1
		_, err = tx.Put(r.Key, r.Value, store.Any)
		return err
	})
	if msg, err := w.log.Checkpoint(context.Background()); !errors.Is(err, ErrTampered) {
		t.Errorf("signed %q, %v", msg, err)
	}
}

// The thief also removes the checkpoint from the store; the broker cannot
// know, but whoever remembers one outside does.
func TestRememberedCheckpoint(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 7)
	older := w.checkpoint(t)
	w.fill(t, 4)
	newer := w.checkpoint(t)
	proof, err := w.log.Consistency(context.Background(), 7, 11)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyConsistency(older, newer, proof, w.trust); err != nil {
		t.Errorf("an honest log: %v", err)
	}
	if _, err := w.verify(newer, 11, WithRemembered(older)); err != nil {
		t.Errorf("an honest log: %v", err)
	}
	if err := VerifyConsistency(newer, older, proof, w.trust); !errors.Is(err, ErrTampered) {
		t.Errorf("a log that shrank: %v", err)
	}
	if _, err := w.verify(older, 7, WithRemembered(newer)); !errors.Is(err, ErrTampered) {
		t.Errorf("a log that shrank: %v", err)
	}
	if err := VerifyConsistency(older, newer, proof[1:], w.trust); !errors.Is(err, ErrTampered) {
		t.Errorf("a short proof: %v", err)
	}
	if err := VerifyConsistency(older, newer, [][]byte{{1}}, w.trust); err == nil {
		t.Error("a proof of odd sizes was accepted")
	}

	rewrite(t, w, 11)
	w.raw(t, func(tx store.Tx) error { return tx.Delete(keyCheckpoint, store.Any) })
	forged := w.checkpoint(t)
	if proof, err = w.log.Consistency(context.Background(), 7, 11); err != nil {
		t.Fatal(err)
	}
	if err := VerifyConsistency(older, forged, proof, w.trust); !errors.Is(err, ErrTampered) {
		t.Errorf("a rewritten log: %v", err)
	}
	if _, err := w.verify(forged, 11); err != nil {
		t.Fatalf("the forgery is meant to be consistent in itself: %v", err)
	}
	if _, err := w.verify(forged, 11, WithRemembered(older)); !errors.Is(err, ErrTampered) {
		t.Errorf("a rewritten log: %v", err)
	}
}

func TestVerifyConsistencyFromTheEmptyLog(t *testing.T) {
	w := newWorld(t)
	empty := w.checkpoint(t)
	w.fill(t, 2)
	if err := VerifyConsistency(empty, w.checkpoint(t), nil, w.trust); err != nil {
		t.Error(err)
	}
}

func TestVerifyInclusion(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 6)
	cp := w.checkpoint(t)
	entries, err := w.log.Entries(context.Background(), 0, 6)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := w.log.Inclusion(context.Background(), 4, 6)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyInclusion(entries[4], cp, proof, w.trust); err != nil {
		t.Error(err)
	}
	for name, e := range map[string]json.RawMessage{
		"another entry": entries[3], "an edited entry": bytes.Replace(entries[4], []byte("allow"), []byte("denyy"), 1),
		"beyond": json.RawMessage(`{"index":6}`), "negative": json.RawMessage(`{"index":-1}`), "no index": json.RawMessage(`{}`),
	} {
		if err := VerifyInclusion(e, cp, proof, w.trust); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Damage that the log itself can see when it opens.
func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name string
		do   func(store.Tx) error
	}{
		{"a key that is no entry", func(tx store.Tx) error {
			_, err := tx.Put(prefixEntry+"0", []byte("x"), store.Absent)
			return err
		}},
		{"another layout", func(tx store.Tx) error {
			r, err := tx.Get(entryKey(8))
			if err == nil {
				r.Value[0]++
				_, err = tx.Put(r.Key, r.Value, store.Any)
			}
			return err
		}},
		{"hashes cut", func(tx store.Tx) error { _, err := tx.Put(entryKey(8), []byte{layout}, store.Any); return err }},
		{"truncated below the checkpoint", func(tx store.Tx) error { return tx.Delete(entryKey(8), store.Any) }},
		{"the checkpoint replaced", func(tx store.Tx) error {
			_, err := tx.Put(keyCheckpoint, []byte("x\n1\n"+tlog.Hash{}.String()+"\n\n"), store.Any)
			return err
		}},
		{"a hand-over of nobody", func(tx store.Tx) error {
			_, err := tx.Put(keyHandovers, []byte(`["x"]`), store.Any)
			return err
		}},
		{"hand-overs that are none", func(tx store.Tx) error { _, err := tx.Put(keyHandovers, []byte(`{`), store.Any); return err }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.fill(t, 9)
			w.checkpoint(t)
			w.raw(t, tt.do)
			if err := w.reopen(); !errors.Is(err, ErrTampered) {
				t.Fatalf("open: %v, want ErrTampered", err)
			}
		})
	}
	w := newWorld(t)
	w.checkpoint(t)
	w.ring = newRing(t, store.Scope(w.st, "elsewhere/"))
	if err := w.reopen(); !errors.Is(err, ErrTampered) {
		t.Errorf("another key took over the log: %v", err)
	}
}

func TestNewKeyNames(t *testing.T) {
	for _, bad := range []string{"", "a b", "a+b", "a\nb"} {
		if _, _, err := NewKey(bad); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("NewKey(%q): %v", bad, err)
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	_, vkey, err := NewKey("log")
	if err != nil {
		f.Fatal(err)
	}
	trust, err := NewTrust(vkey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
	f.Add("log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\next\n\n— log AAAA\n")
	f.Add("log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJ\r\rWZG3hSuFU=\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ParseCheckpoint([]byte(text), trust); err == nil {
			t.Fatal("a signature came out of nowhere")
		}
		c, err := parseBody(text)
		if err == nil && !strings.HasPrefix(text, c.text()) {
			t.Fatalf("accepted %q, but it means %q", text, c.text())
		}
	})
}

func FuzzReadEntry(f *testing.F) {
	f.Add([]byte(`{"index":3,"kind":"release"}`))
	f.Add([]byte(` {"kind":"\u003c","index":0} `))
	f.Fuzz(func(t *testing.T, raw []byte) {
		leaf, index, err := readEntry(raw)
		if err != nil {
			return
		}
		again, same, err := readEntry(leaf)
		if err != nil || same != index || !bytes.Equal(leaf, again) {
			t.Fatalf("%q is not stable: %q, %d, %v", leaf, again, same, err)
		}
	})
}
