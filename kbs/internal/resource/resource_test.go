package resource

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var clock = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

func now() time.Time { return clock }

type world struct {
	*Builtin
	dir    string
	st     store.Store
	master secret.Bytes
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{dir: t.TempDir(), master: secret.Random(32)}
	var err error
	if w.st, err = sqlite.Open(filepath.Join(w.dir, "kbs.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.st.Close() })
	if w.Builtin, err = OpenBuiltin(w.st, w.master, now); err != nil {
		t.Fatal(err)
	}
	return w
}

func path(t testing.TB, s string) Path {
	t.Helper()
	p, err := ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w world) put(t testing.TB, p, value string) int64 {
	t.Helper()
	info, err := w.Put(context.Background(), path(t, p), secret.Copy([]byte(value)), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if info.Path != p || info.Size != len(value) || info.Author != "alice" || !info.Time.Equal(clock) {
		t.Fatalf("info %+v", info)
	}
	return info.Version
}

func (w world) want(t testing.TB, p, value string) {
	t.Helper()
	got, err := w.Get(context.Background(), path(t, p))
	if err != nil || !bytes.Equal(got.Reveal(), []byte(value)) {
		t.Fatalf("get %s: %d bytes, %v", p, got.Len(), err)
	}
}

func TestParsePath(t *testing.T) {
	for _, good := range []string{"a/b/c", "_/-/0", "default/key/1.2", "A/b.c/d-e_f"} {
		if p, err := ParsePath(good); err != nil || p.String() != good {
			t.Errorf("ParsePath(%q): %v, %v", good, p, err)
		}
	}
	for _, bad := range []string{"", "a", "a/b", "a/b/c/d", "a//c", "a/b/", "/a/b", "a/../c", "a/.b/c", "a/b/c\n", "a/b/é", "a/b/c%2f", "a/b/" + strings.Repeat("c", 129)} {
		if p, err := ParsePath(bad); !errors.Is(err, ErrPath) {
			t.Errorf("ParsePath(%q): %v, %v", bad, p, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("a/b/c")
	f.Add("a/../c")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err == nil && (p.String() != s || strings.Contains(s, "..") && strings.Contains("/"+s+"/", "/../")) {
			t.Fatalf("accepted %q as %v", s, p)
		}
	})
}

func TestPutGetDelete(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	p := path(t, "repo/type/tag")
	if _, err := w.Get(ctx, p); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	if err := w.Delete(ctx, p); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("delete of nothing: %v", err)
	}
	if v := w.put(t, "repo/type/tag", "one"); v != 1 {
		t.Fatalf("version %d", v)
	}
	w.want(t, "repo/type/tag", "one")
	if v := w.put(t, "repo/type/tag", "two"); v != 2 {
		t.Fatalf("version %d", v)
	}
	w.want(t, "repo/type/tag", "two")
	if err := w.Delete(ctx, p); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(ctx, p); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get after delete: %v", err)
	}
	if v := w.put(t, "repo/type/tag", ""); v <= 2 {
		t.Fatalf("version %d after a delete at 2", v)
	}
	w.want(t, "repo/type/tag", "")
	big := strings.Repeat("x", MaxValue)
	w.put(t, "repo/type/big", big)
	w.want(t, "repo/type/big", big)
	if _, err := w.Put(ctx, path(t, "repo/type/big"), secret.Copy([]byte(big+"x")), ""); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("put of too much: %v", err)
	}
	for _, bad := range []Path{{}, {"a", "b", ""}, {"a", "b/c", "d"}, {"..", "b", "c"}} {
		_, e1 := w.Get(ctx, bad)
		_, e2 := w.Put(ctx, bad, secret.Bytes{}, "")
		for _, err := range []error{e1, e2, w.Delete(ctx, bad)} {
			if !errors.Is(err, ErrPath) {
				t.Errorf("path %q: %v", bad, err)
			}
		}
	}
}

func TestList(t *testing.T) {
	w := newWorld(t)
	for i := range page + 3 {
		w.put(t, fmt.Sprintf("many/t/%05d", i), "v")
	}
	w.put(t, "a/b/c", "three")
	w.put(t, "a/b/c", "thirteen char")
	for prefix, want := range map[string]int{"": page + 4, "many/": page + 3, "a/b/c": 1, "a/b/c/": 0, "%": 0} {
		got, err := w.List(context.Background(), prefix)
		if err != nil || len(got) != want {
			t.Errorf("list(%q): %d of them, %v; want %d", prefix, len(got), err, want)
		}
	}
	got, err := w.List(context.Background(), "a/")
	if err != nil || got[0].Path != "a/b/c" || got[0].Version != 2 || got[0].Size != 13 || got[0].Author != "alice" {
		t.Errorf("list: %+v, %v", got, err)
	}
}

// The change and whatever else is in the transaction live or die together.
func TestTransactions(t *testing.T) {
	w := newWorld(t)
	w.put(t, "a/b/c", "one")
	mine := errors.New("mine")
	err := w.st.Update(context.Background(), func(tx store.Tx) error {
		_, e1 := w.PutTx(tx, path(t, "a/b/d"), secret.Copy([]byte("x")), "")
		return errors.Join(e1, w.DeleteTx(tx, path(t, "a/b/c")), mine)
	})
	if !errors.Is(err, mine) || errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	w.want(t, "a/b/c", "one")
	if _, err := w.Get(context.Background(), path(t, "a/b/d")); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
}

// raw changes the store behind the backend's back.
func (w world) raw(t *testing.T, f func(store.Tx) error) {
	t.Helper()
	if err := w.st.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func record(tx store.Tx, key string) []byte {
	r, err := tx.Get(key)
	if err != nil {
		return nil
	}
	return r.Value
}

func overwrite(tx store.Tx, key string, value []byte) error {
	_, err := tx.Put(key, value, store.Any)
	return err
}

// A thief of the store, who can write to it, must not get the broker to hand
// out one secret in the place of another.
func TestTamperedRecordsDoNotOpen(t *testing.T) {
	const a, b = "repo/type/a", "repo/type/b"
	var oldInfo, oldValue []byte
	tests := []struct {
		name string
		do   func(tx store.Tx) error
	}{
		{"value moved from another path", func(tx store.Tx) error {
			return overwrite(tx, prefixValue+a, record(tx, prefixValue+b))
		}},
		{"record moved from another path", func(tx store.Tx) error {
			return errors.Join(overwrite(tx, prefixValue+a, record(tx, prefixValue+b)), overwrite(tx, prefixInfo+a, record(tx, prefixInfo+b)))
		}},
		{"older value brought back", func(tx store.Tx) error { return overwrite(tx, prefixValue+a, oldValue) }},
		{"older record brought back under a new version", func(tx store.Tx) error {
			return errors.Join(overwrite(tx, prefixValue+a, oldValue), overwrite(tx, prefixInfo+a, oldInfo))
		}},
		{"description altered", func(tx store.Tx) error {
			return overwrite(tx, prefixInfo+a, bytes.Replace(record(tx, prefixInfo+a), []byte("alice"), []byte("mallo"), 1))
		}},
		{"value gone", func(tx store.Tx) error { return tx.Delete(prefixValue+a, store.Any) }},
		{"value empty", func(tx store.Tx) error { return overwrite(tx, prefixValue+a, nil) }},
		{"value cut", func(tx store.Tx) error {
			v := record(tx, prefixValue+a)
			return overwrite(tx, prefixValue+a, v[:len(v)-1])
		}},
		{"data key of another value", func(tx store.Tx) error {
			va, vb := record(tx, prefixValue+a), record(tx, prefixValue+b)
			copy(va[:1+sizeID+sizeWrapped], vb)
			return overwrite(tx, prefixValue+a, va)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put(t, a, "old secret of a")
			w.raw(t, func(tx store.Tx) error {
				oldInfo, oldValue = record(tx, prefixInfo+a), record(tx, prefixValue+a)
				return nil
			})
			w.put(t, a, "new secret of a")
			w.put(t, b, "old secret of b")
			w.put(t, b, "new secret of b") // same length and version as a
			w.want(t, a, "new secret of a")
			w.raw(t, tt.do)
			if got, err := w.Get(context.Background(), path(t, a)); !errors.Is(err, ErrSealed) {
				t.Fatalf("get: %d bytes, %v; want ErrSealed", got.Len(), err)
			}
			w.want(t, b, "new secret of b")
			w.put(t, a, "repaired")
			w.want(t, a, "repaired")
		})
	}
}

func TestEveryByteOfASealCounts(t *testing.T) {
	s, err := newSealer(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	bound := binding("a/b/c", 3, []byte("{}"))
	sealed, err := s.seal([]byte("value"), bound)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.open(sealed, bound); err != nil || string(got.Reveal()) != "value" {
		t.Fatalf("open: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.open(bad, bound); !errors.Is(err, ErrSealed) {
			t.Fatalf("byte %d does not count: %v", i, err)
		}
	}
	for name, other := range map[string][]byte{
		"path": binding("a/b/d", 3, []byte("{}")), "version": binding("a/b/c", 4, []byte("{}")),
		"description": binding("a/b/c", 3, []byte("[]")), "border": binding("a/b/c{", 3, []byte("}")),
	} {
		if _, err := s.open(sealed, other); !errors.Is(err, ErrSealed) {
			t.Errorf("the %s is not bound: %v", name, err)
		}
	}
	again, err := s.seal([]byte("value"), bound)
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("two seals of one value are equal, %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	s, err := newSealer(secret.Random(32))
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := s.seal([]byte("v"), []byte("bound"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:sizeSealed-1])
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := s.open(b, []byte("bound")); err == nil && !bytes.Equal(b, sealed) {
			t.Fatal("a seal came out of nowhere")
		}
	})
}

// Whoever copies the disk while the broker runs finds no plaintext on it.
func TestNoPlaintextOnDisk(t *testing.T) {
	w := newWorld(t)
	word := hex.EncodeToString(secret.Random(24).Reveal())
	for range 3 {
		w.put(t, "repo/type/tag", word)
		w.put(t, "repo/type/gone", strings.Repeat(word, 500)) // spills to overflow pages
	}
	if err := w.Delete(context.Background(), path(t, "repo/type/gone")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if !bytes.Contains(all, []byte("alice")) || len(files) < 2 {
		t.Fatalf("the author's name is not in %q, so the test would not find the secret either", files)
	}
	raw, _ := hex.DecodeString(word)
	for _, form := range [][]byte{[]byte(word), raw, []byte(base64.StdEncoding.EncodeToString([]byte(word))[:40]), w.master.Reveal()} {
		if bytes.Contains(all, form) {
			t.Error("plaintext is on the disk")
		}
	}
}

func TestAnotherMasterKeyIsRefused(t *testing.T) {
	w := newWorld(t)
	w.put(t, "a/b/c", "v")
	if _, err := OpenBuiltin(w.st, secret.Random(32), now); !errors.Is(err, ErrMasterKey) {
		t.Errorf("another key: %v", err)
	}
	for _, size := range []int{0, 16, 31, 33} {
		if _, err := OpenBuiltin(w.st, secret.Random(size), now); !errors.Is(err, ErrMasterKey) {
			t.Errorf("a key of %d bytes: %v", size, err)
		}
	}
	again, err := OpenBuiltin(w.st, secret.Copy(w.master.Reveal()), now)
	if err != nil {
		t.Fatal(err)
	}
	world{Builtin: again}.want(t, "a/b/c", "v")
}

func BenchmarkPut(b *testing.B) {
	w := newWorld(b)
	p, v := path(b, "a/b/c"), secret.Random(64)
	for b.Loop() {
		if _, err := w.Put(b.Context(), p, v, "bench"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	w := newWorld(b)
	w.put(b, "a/b/c", strings.Repeat("x", 64))
	p := path(b, "a/b/c")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Get(b.Context(), p); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
