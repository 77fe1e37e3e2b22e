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

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store/sqlite"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

var clock = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

func now() time.Time { return clock }

type world struct {
	*Builtin
	dir    string
	base   store.Store
	master kek.Files
}

func scopeOf(st store.Store, tenant string) store.Store { return store.Scope(st, "t/"+tenant+"/") }

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{dir: t.TempDir()}
	var err error
	if w.base, err = sqlite.Open(filepath.Join(w.dir, "kbs.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.base.Close() })
	w.master = kek.Files(filepath.Join(t.TempDir(), "master.key"))
	w.Builtin = w.tenant(t, "a")
	return w
}

func (w world) keys(t testing.TB, st store.Store) *kek.Set {
	t.Helper()
	set, err := kek.OpenSet(context.Background(), st, time.Now, w.master)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// tenant returns the back end of another tenant over the same store.
func (w world) tenant(t testing.TB, name string) *Builtin {
	t.Helper()
	return NewBuiltin(Config{Store: scopeOf(w.base, name), Keys: kek.Bind(w.keys(t, w.base), name), Now: now, Keep: 3})
}

func path(t testing.TB, s string) Path {
	t.Helper()
	p, err := ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func putOf(t testing.TB, p, value string) Change {
	return Change{Op: OpPut, Path: path(t, p), Want: int64(store.Any), Author: "alice", Value: secret.Copy([]byte(value))}
}

func (w world) put(t testing.TB, p, value string) int64 {
	t.Helper()
	info, err := w.Apply(context.Background(), putOf(t, p, value))
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
	got, err := w.Get(context.Background(), path(t, p), 0)
	if err != nil || string(got.Value.Reveal()) != value {
		t.Fatalf("get %s: %d bytes, %v", p, got.Value.Len(), err)
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

func TestVersionsAreKeptAndForgotten(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.put(t, "a/b/c", fmt.Sprint("value ", i+1))
	}
	info, err := w.Describe(t.Context(), path(t, "a/b/c"))
	if err != nil || info.Version != 5 || info.Value != 5 || len(info.Versions) != 3 || info.Versions[0].Version != 5 || info.Versions[2].Version != 3 {
		t.Fatalf("%+v, %v", info, err)
	}
	for n, value := range map[int64]string{3: "value 3", 5: "value 5"} {
		if item, err := w.Get(t.Context(), path(t, "a/b/c"), n); err != nil || string(item.Value.Reveal()) != value {
			t.Errorf("version %d: %v", n, err)
		}
	}
	if _, err := w.Get(t.Context(), path(t, "a/b/c"), 2); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a version beyond those that are kept: %v", err)
	}
	w.raw(t, func(tx store.Tx) error {
		rs, err := tx.List(prefixValue, "", 100)
		if len(rs) != 3 {
			t.Errorf("%d values are stored", len(rs))
		}
		return err
	})
}

func TestCount(t *testing.T) {
	w := newWorld(t)
	want := func(n int64) {
		t.Helper()
		if got, err := w.Count(t.Context()); err != nil || got != n {
			t.Fatalf("%d, %v; want %d", got, err, n)
		}
	}
	want(0)
	w.put(t, "a/b/c", "1")
	w.put(t, "a/b/c", "2")
	w.put(t, "a/b/d", "1")
	want(2)
	if _, err := w.Apply(t.Context(), Change{Op: OpDelete, Path: path(t, "a/b/c"), Want: -1}); err != nil {
		t.Fatal(err)
	}
	want(1)
	if n, err := w.tenant(t, "b").Count(t.Context()); err != nil || n != 0 {
		t.Errorf("another tenant counts %d, %v", n, err)
	}
}

// The change and whatever else is in the transaction live or die together.
func TestTransactions(t *testing.T) {
	w := newWorld(t)
	w.put(t, "a/b/c", "one")
	mine := errors.New("mine")
	for _, c := range []Change{
		putOf(t, "a/b/c", "two"), putOf(t, "a/b/d", "new"), {Op: OpDelete, Path: path(t, "a/b/c"), Want: -1},
		{Op: OpMeta, Path: path(t, "a/b/c"), Want: -1, Meta: &api.ResourceMeta{Hold: "x"}},
	} {
		err := w.Run(t.Context(), c, func(commit Commit) error {
			return w.Store.Update(t.Context(), func(tx store.Tx) error {
				_, err := commit(tx)
				return errors.Join(err, mine)
			})
		})
		if !errors.Is(err, mine) {
			t.Fatal(err)
		}
	}
	w.want(t, "a/b/c", "one")
	if _, err := w.Get(t.Context(), path(t, "a/b/d"), 0); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if n, err := w.Count(t.Context()); err != nil || n != 1 {
		t.Errorf("count %d, %v", n, err)
	}
}

func TestFilters(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		c := putOf(t, fmt.Sprintf("a/b/%02d", i), "v")
		c.Meta = &api.ResourceMeta{Owner: fmt.Sprint("team-", i%3), Labels: map[string]string{"n": fmt.Sprint(i % 5)}}
		if i%10 == 0 {
			c.Meta.Expires = clock.Add(time.Duration(i+1) * time.Hour)
		}
		if _, err := w.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		q    Query
		want int
	}{
		"owner":         {Query{Owner: "team-1"}, 10},
		"label":         {Query{Labels: map[string]string{"n": "2"}}, 6},
		"both":          {Query{Owner: "team-1", Labels: map[string]string{"n": "2"}}, 2},
		"no such label": {Query{Labels: map[string]string{"m": ""}}, 0},
		"expires":       {Query{Expires: clock.Add(12 * time.Hour)}, 2},
	} {
		for _, limit := range []int{1, 4, 100} {
			n, q := 0, tt.q
			for q.Limit = limit; ; {
				page, err := w.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				n += len(page.Items)
				if page.Next == "" {
					break
				}
				q.After = page.Next
			}
			if n != tt.want {
				t.Errorf("%s in pages of %d: %d, want %d", name, limit, n, tt.want)
			}
		}
	}
}

// raw changes the store behind the back end's back.
func (w world) raw(t testing.TB, f func(store.Tx) error) {
	t.Helper()
	if err := w.Store.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// Whoever copies the disk while the broker runs finds no plaintext on it.
func TestNoPlaintextOnDisk(t *testing.T) {
	w := newWorld(t)
	word := hex.EncodeToString(secret.Random(24).Reveal())
	for range 3 {
		w.put(t, "repo/type/tag", word)
		w.put(t, "repo/type/gone", strings.Repeat(word, 500)) // spills to overflow pages
	}
	if _, err := w.Apply(t.Context(), Change{Op: OpDelete, Path: path(t, "repo/type/gone"), Want: -1}); err != nil {
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
	master, err := kek.Load(string(w.master))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := hex.DecodeString(word)
	for _, form := range [][]byte{[]byte(word), raw, []byte(base64.StdEncoding.EncodeToString([]byte(word))[:40]), master.Reveal()} {
		if bytes.Contains(all, form) {
			t.Error("plaintext is on the disk")
		}
	}
}

// fill puts n resources in, as Apply does but without waiting for the disk for
// each.
func (w world) fill(b *testing.B, n int) {
	b.Helper()
	const each = 500
	for at := 0; at < n; at += each {
		commits := make([]Commit, 0, each)
		for i := at; i < min(n, at+each); i++ {
			c, err := w.begin(b.Context(), putOf(b, fmt.Sprintf("repo/type/%06d", i), strings.Repeat("x", 64)))
			if err != nil {
				b.Fatal(err)
			}
			commits = append(commits, c)
		}
		w.raw(b, func(tx store.Tx) error {
			for _, c := range commits {
				if _, err := c(tx); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// The cost of a release and of a page must not grow with what else there is.
func BenchmarkGet(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			w.fill(b, n)
			var ps []Path
			for i := range 100 {
				ps = append(ps, path(b, fmt.Sprintf("repo/type/%06d", i*n/100)))
			}
			b.Run("get", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, err := w.Get(b.Context(), ps[i%100], 0); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("page", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, err := w.List(b.Context(), Query{Limit: 50, After: ps[i%90].String()}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkPut(b *testing.B) {
	w := newWorld(b)
	c := putOf(b, "a/b/c", strings.Repeat("x", 64))
	for b.Loop() {
		if _, err := w.Apply(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}
