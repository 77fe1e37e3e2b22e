package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// clock is a fixed moment with more digits than an entry keeps.
var clock = time.Date(2031, 2, 3, 4, 5, 6, 123456789, time.FixedZone("x", 3600))

type world struct {
	dir   string
	st    store.Store
	ring  *keyring.Ring
	log   *Log
	trust Trust
}

// newRing returns a ring whose keys a thief of st cannot open.
func newRing(t testing.TB, st store.Store) *keyring.Ring {
	t.Helper()
	by, err := kek.NewLocal(secret.Random(kek.Size))
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Open(st, by)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	var err error
	if w.st, err = sqlite.Open(filepath.Join(w.dir, "kbs.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.st.Close() })
	w.ring = newRing(t, w.st)
	if err := w.reopen(); err != nil {
		t.Fatal(err)
	}
	k, err := w.log.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if w.trust, err = NewTrust(k.Current); err != nil {
		t.Fatal(err)
	}
	return w
}

// open opens the log as another replica would.
func (w *world) open() (*Log, error) {
	return Open(context.Background(), w.st, w.ring, func() time.Time { return clock })
}

func (w *world) reopen() error {
	l, err := w.open()
	if err == nil {
		w.log = l
	}
	return err
}

// signer is the key that the broker signs checkpoints with.
func (w *world) signer(t testing.TB) note.Signer {
	t.Helper()
	k, err := w.log.keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return k.current.signer
}

func (w *world) fill(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		e := api.AuditEntry{Kind: "release", Decision: "allow", Object: fmt.Sprintf("repo/type/%d", i), Details: map[string]string{"b": "<&>", "a": "\u2028"}}
		if _, err := w.log.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) checkpoint(t testing.TB) []byte {
	t.Helper()
	cp, err := w.log.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return cp
}

// verify judges the log in the store by a checkpoint, as an auditor would.
func (w *world) verify(cp []byte, size int64, options ...Option) (Report, error) {
	ctx := context.Background()
	options = append(options, WithConsistency(func(older, newer int64) ([][]byte, error) { return w.log.Consistency(ctx, older, newer) }))
	return Verify(w.log.All(ctx, size), cp, w.trust, options...)
}

// raw changes the store behind the log's back.
func (w *world) raw(t testing.TB, f func(store.Tx) error) {
	t.Helper()
	if err := w.st.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func TestAppendIsCanonical(t *testing.T) {
	w := newWorld(t)
	got, err := w.log.Append(context.Background(), api.AuditEntry{
		Index: 77, Time: time.Unix(0, 0), Kind: "release", Decision: "allow", Subject: "a\xffb",
		Object: "<é&\u2028>\n", Details: map[string]string{"\ue000": "1", "\U0001f600": "2", "n": "\x01"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Index != 0 || got.Subject != "a\ufffdb" || !got.Time.Equal(clock.Truncate(time.Microsecond)) {
		t.Errorf("returned entry: %+v", got)
	}
	entries, err := w.log.Entries(context.Background(), 0, 10)
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries: %q, %v", entries, err)
	}
	// RFC 8785: members by UTF-16, nothing escaped that need not be.
	want := `{"decision":"allow","details":{"n":"\u0001","` + "\U0001f600" + `":"2","` + "\ue000" + `":"1"},"index":0,"kind":"release",` +
		`"object":"<é&` + "\u2028" + `>\n","subject":"a` + "\ufffd" + `b","time":"2031-02-03T03:05:06.123456Z"}`
	if string(entries[0]) != want {
		t.Fatalf("entry\n got %s\nwant %s", entries[0], want)
	}
	var back api.AuditEntry
	if err := json.Unmarshal(entries[0], &back); err != nil || !back.Time.Equal(got.Time) {
		t.Fatalf("the entry reads back as %+v, %v", back, err)
	}
}

func TestEntriesPage(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 7)
	for _, tt := range []struct {
		from  int64
		limit int
		want  int
	}{{0, 100, 7}, {0, 3, 3}, {5, 3, 2}, {7, 1, 0}, {100, 1, 0}} {
		got, err := w.log.Entries(context.Background(), tt.from, tt.limit)
		if err != nil || len(got) != tt.want {
			t.Errorf("entries(%d, %d): %d of them, %v; want %d", tt.from, tt.limit, len(got), err, tt.want)
		}
		for i, raw := range got {
			var e api.AuditEntry
			if err := json.Unmarshal(raw, &e); err != nil || e.Index != tt.from+int64(i) {
				t.Errorf("entries(%d, %d)[%d] has index %d, %v", tt.from, tt.limit, i, e.Index, err)
			}
		}
	}
	if _, err := w.log.Entries(context.Background(), -1, 1); !errors.Is(err, ErrRange) {
		t.Errorf("entries(-1): %v", err)
	}
}

func TestEntryTooLarge(t *testing.T) {
	w := newWorld(t)
	_, err := w.log.Append(context.Background(), api.AuditEntry{Object: strings.Repeat("x", MaxEntry)})
	if !errors.Is(err, ErrEntryTooLarge) {
		t.Fatalf("append: %v", err)
	}
	if n, err := w.log.Size(context.Background()); n != 0 || err != nil {
		t.Fatalf("size %d, %v", n, err)
	}
}

// An entry and the change that it describes live or die together.
func TestAppendTxRollsBackWithTheChange(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 2)
	mine := errors.New("mine")
	err := w.st.Update(context.Background(), func(tx store.Tx) error {
		e, err := w.log.AppendTx(tx, api.AuditEntry{Kind: "policy.put"})
		if err != nil || e.Index != 2 {
			t.Errorf("append: %+v, %v", e, err)
		}
		if e, err = w.log.AppendTx(tx, api.AuditEntry{Kind: "policy.put"}); err != nil || e.Index != 3 {
			t.Errorf("second append in one transaction: %+v, %v", e, err)
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	w.fill(t, 1)
	if r, err := w.verify(w.checkpoint(t), 3); err != nil || r.Entries != 3 {
		t.Fatalf("verify: %+v, %v", r, err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	w := newWorld(t)
	other, err := Open(context.Background(), w.st, w.ring, time.Now) // another replica on the same store
	if err != nil {
		t.Fatal(err)
	}
	const workers, each = 6, 15
	seen := make([]bool, workers*each)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for range each {
				l := []*Log{w.log, other}[i%2]
				e, err := l.Append(context.Background(), api.AuditEntry{Kind: "attest"})
				if err != nil {
					t.Error(err)
					return
				}
				if i == 0 {
					if _, err := l.Checkpoint(context.Background()); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				if seen[e.Index] {
					t.Errorf("index %d was given twice", e.Index)
				}
				seen[e.Index] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, ok := range seen {
		if !ok {
			t.Fatalf("index %d was never given", i)
		}
	}
	if r, err := w.verify(w.checkpoint(t), workers*each); err != nil || r.Checkpoint.Size != workers*each {
		t.Fatalf("verify: %+v, %v", r, err)
	}
}

// A second store on the file sees what the first had acknowledged, although
// the first was never closed.
func TestAppendIsDurableWhenItReturns(t *testing.T) {
	w := newWorld(t)
	w.fill(t, 5)
	again, err := sqlite.Open(filepath.Join(w.dir, "kbs.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	l, err := Open(context.Background(), again, w.ring, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := l.Size(context.Background()); n != 5 || err != nil {
		t.Fatalf("size %d, %v", n, err)
	}
}

func TestCheckpointForm(t *testing.T) {
	w := newWorld(t)
	empty := w.checkpoint(t)
	c, err := ParseCheckpoint(empty, w.trust)
	if err != nil || c.Size != 0 || c.Root.String() != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" { // SHA-256 of nothing: RFC 6962 section 2.1
		t.Fatalf("empty log: %+v, %v", c, err)
	}
	w.fill(t, 3)
	cp := w.checkpoint(t)
	lines := strings.Split(string(cp), "\n")
	if name := w.trust.Origin(); len(lines) != 6 || lines[0] != name || lines[1] != "3" || lines[3] != "" || !strings.HasPrefix(lines[4], "— "+name+" ") {
		t.Fatalf("checkpoint:\n%s", cp)
	}
	if again := w.checkpoint(t); !bytes.Equal(cp, again) {
		t.Error("the checkpoint of an unchanged log changed")
	}
	if r, err := Verify(w.log.All(context.Background(), 0), empty, w.trust); err != nil || r.Entries != 0 {
		t.Errorf("verify of the empty log: %+v, %v", r, err)
	}
}

// Every proof of every small tree satisfies tlog's own checkers, against roots
// that the test computes by the definition of RFC 6962 section 2.1.
func TestProofs(t *testing.T) {
	w := newWorld(t)
	const n = 20
	w.fill(t, n)
	ctx := context.Background()
	entries, err := w.log.Entries(ctx, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	for size := int64(1); size <= n; size++ {
		root := definition(entries[:size])
		for i := range size {
			proof, err := w.log.Inclusion(ctx, i, size)
			if err != nil {
				t.Fatal(err)
			}
			p, err := parseProof(proof)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckRecord(p, size, root, i, tlog.RecordHash(entries[i])); err != nil {
				t.Fatalf("inclusion of %d in %d: %v", i, size, err)
			}
			c, err := w.log.Consistency(ctx, i+1, size)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkTree(c, Checkpoint{Size: size, Root: root}, Checkpoint{Size: i + 1, Root: definition(entries[:i+1])}); err != nil {
				t.Fatalf("consistency of %d with %d: %v", i+1, size, err)
			}
		}
	}
	for _, bad := range [][2]int64{{-1, 5}, {5, 5}, {0, n + 1}, {0, 0}, {3, -1}} {
		if _, err := w.log.Inclusion(ctx, bad[0], bad[1]); !errors.Is(err, ErrRange) {
			t.Errorf("inclusion%v: %v", bad, err)
		}
	}
	for _, bad := range [][2]int64{{0, 5}, {-1, 5}, {6, 5}, {1, n + 1}} {
		if _, err := w.log.Consistency(ctx, bad[0], bad[1]); !errors.Is(err, ErrRange) {
			t.Errorf("consistency%v: %v", bad, err)
		}
	}
}

func definition(entries []json.RawMessage) tlog.Hash {
	if len(entries) == 1 {
		return tlog.RecordHash(entries[0])
	}
	k := 1
	for k*2 < len(entries) {
		k *= 2
	}
	return tlog.NodeHash(definition(entries[:k]), definition(entries[k:]))
}
