package audit

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

func (w *world) rotate(t testing.TB, l *Log) api.AuditKeys {
	t.Helper()
	before, err := l.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.RotateKey(t.Context(), before.Current, api.AuditEntry{Subject: "admin:x"})
	if err != nil || k.Current == before.Current || len(k.Handovers) != len(before.Handovers)+1 {
		t.Fatalf("%+v, %v", k, err)
	}
	return k
}

// Checkpoints of every generation stand, for whoever has any of the keys; and
// a replica that rotated nothing follows.
func TestRotation(t *testing.T) {
	w := newWorld(t)
	other, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	var notes [][]byte
	var keys api.AuditKeys
	vkeys := []string{w.trust.Current()}
	for range 3 {
		w.fill(t, 4)
		notes = append(notes, w.checkpoint(t))
		keys = w.rotate(t, w.log)
		vkeys = append(vkeys, keys.Current)
	}
	w.fill(t, 1)
	last, err := other.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	notes = append(notes, last)
	for _, vkey := range vkeys {
		trust, err := NewTrust(vkey)
		if err != nil {
			t.Fatal(err)
		}
		if trust, err = trust.Follow(keys.Handovers); err != nil || trust.Current() != keys.Current {
			t.Fatalf("from %s: %v", vkey, err)
		}
		for i, want := range []int64{4, 9, 14, 16} {
			if c, err := ParseCheckpoint(notes[i], trust); err != nil || c.Size != want {
				t.Errorf("checkpoint %d: %+v, %v", i, c, err)
			}
		}
		if _, err := Verify(w.log.All(t.Context(), 16), last, trust, WithRemembered(notes[0]), WithRemembered(notes[2])); err != nil {
			t.Error(err)
		}
	}
	if _, err := ParseCheckpoint(last, w.trust); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("without the hand-overs: %v", err)
	}
	if err := w.reopen(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.log.RotateKey(t.Context(), vkeys[0], api.AuditEntry{}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a key that is not in force any more was rotated: %v", err)
	}
}

// An old key does not speak for what came after it, nor a new one for what
// came before.
func TestEachKeyHasItsTime(t *testing.T) {
	w := newWorld(t)
	old := w.signer(t)
	w.fill(t, 3)
	keys := w.rotate(t, w.log)
	w.fill(t, 3)
	trust, err := w.trust.Follow(keys.Handovers)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(s note.Signer, size int64) error {
		msg, err := note.Sign(&note.Note{Text: Checkpoint{Origin: trust.Origin(), Size: size}.text()}, s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseCheckpoint(msg, trust)
		return err
	}
	for size, good := range map[int64][2]bool{0: {true, false}, 3: {true, false}, 4: {false, true}, 7: {false, true}} {
		for i, s := range []note.Signer{old, w.signer(t)} {
			if err := sign(s, size); (err == nil) != good[i] {
				t.Errorf("key %d about %d entries: %v", i, size, err)
			}
		}
	}
}

func TestForgedHandovers(t *testing.T) {
	w, foreign := newWorld(t), newWorld(t)
	w.fill(t, 2)
	w.rotate(t, w.log)
	w.fill(t, 2)
	good := w.rotate(t, w.log).Handovers
	w.fill(t, 2)
	theirs := foreign.rotate(t, foreign.log).Handovers
	unsigned, _, _ := strings.Cut(good[0], "\n\n")
	lines := strings.Split(good[0], "\n")
	one := strings.Join(append(lines[:len(lines)-2:len(lines)-2], ""), "\n") // without the new key's signature
	for name, said := range map[string][]string{
		"of another log":        theirs,
		"a gap":                 good[1:],
		"twice":                 {good[0], good[0]},
		"swapped":               {good[1], good[0]},
		"unsigned":              {unsigned + "\n"},
		"signed by one":         {one},
		"another size":          {strings.Replace(good[0], "\n2\n", "\n3\n", 1)},
		"of another after ours": {good[0], theirs[0]},
		"empty":                 {""},
	} {
		if trust, err := w.trust.Follow(said); !errors.Is(err, ErrHandover) {
			t.Errorf("%s: trusts %s, %v", name, trust.Current(), err)
		}
	}
	if _, err := w.trust.Follow(good); err != nil {
		t.Error(err)
	}
	if trust, err := w.trust.Follow(nil); err != nil || trust.Current() != w.trust.Current() {
		t.Errorf("none: %v", err)
	}
}

// However many replicas sign while the log grows and its key changes, there is
// one checkpoint of each size.
func TestOneCheckpointOfEachSize(t *testing.T) {
	w := newWorld(t)
	var replicas []*Log
	for range 4 {
		l, err := w.open()
		if err != nil {
			t.Fatal(err)
		}
		replicas = append(replicas, l)
	}
	var mu sync.Mutex
	seen := map[string][]byte{}
	var wg sync.WaitGroup
	for i, l := range replicas {
		wg.Go(func() {
			for n := range 12 {
				if i == 0 {
					w.fill(t, 1)
				}
				if i == 1 && n%5 == 4 {
					w.rotate(t, l)
				}
				msg, err := l.Checkpoint(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				size := strings.SplitN(string(msg), "\n", 3)[1]
				mu.Lock()
				if had := seen[size]; had != nil && !bytes.Equal(had, msg) {
					t.Errorf("two checkpoints of size %s:\n%s\n%s", size, had, msg)
				}
				seen[size] = msg
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	keys, err := w.log.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trust, err := w.trust.Follow(keys.Handovers)
	if err != nil || len(keys.Handovers) != 2 {
		t.Fatal(keys.Handovers, err)
	}
	for size, msg := range seen {
		if _, err := ParseCheckpoint(msg, trust); err != nil {
			t.Errorf("size %s: %v", size, err)
		}
	}
}

func FuzzParseHandover(f *testing.F) {
	var vkeys []string
	var signers []note.Signer
	for range 2 {
		skey, vkey, err := NewKey("log")
		if err != nil {
			f.Fatal(err)
		}
		s, err := note.NewSigner(skey)
		if err != nil {
			f.Fatal(err)
		}
		vkeys, signers = append(vkeys, vkey), append(signers, s)
	}
	msg, err := note.Sign(&note.Note{Text: handover{"log", 7, vkeys[0], vkeys[1]}.text()}, signers...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(msg))
	f.Add(handoverTitle + "\nlog\n7\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHandover(text)
		if err == nil && !strings.HasPrefix(text, h.text()+"\n") {
			t.Fatalf("accepted %q, but it means %q", text, h.text())
		}
	})
}
