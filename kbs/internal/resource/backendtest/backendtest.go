// Package backendtest is the executable form of the contract of a resource
// back end. Every back end passes Run, each as far as its traits go: what it
// does not claim it has to refuse, so that nobody takes silence for success.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Backend is a back end to be tested.
type Backend struct {
	resource.Backend
	// Seed stores a value behind the back end's back, for one that is no
	// Changer. Its first resource has the lowest version.
	Seed func(t *testing.T, p resource.Path, value []byte)
	// MaxValue is the largest value that it takes, in bytes; 0 is
	// resource.MaxValue.
	MaxValue int
}

// Run holds back ends, each fresh and empty, against the contract.
func Run(t *testing.T, open func(*testing.T) Backend) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Backend){
		"values":      values,
		"paths":       paths,
		"honesty":     honesty,
		"delete":      deletes,
		"compare":     compare,
		"versions":    versions,
		"metadata":    metadata,
		"lists":       lists,
		"concurrency": concurrency,
		"ownership":   ownership,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Path parses a path or fails the test.
func Path(t testing.TB, s string) resource.Path {
	t.Helper()
	p, err := resource.ParsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// apply makes a change that must succeed.
func (b Backend) apply(t *testing.T, c resource.Change) api.ResourceInfo {
	t.Helper()
	info, err := b.Backend.(resource.Changer).Apply(t.Context(), c)
	if err != nil {
		t.Fatalf("change %d of %s: %v", c.Op, c.Path, err)
	}
	return info
}

// refuse makes a change that must fail.
func (b Backend) refuse(t *testing.T, c resource.Change, want error) {
	t.Helper()
	to, ok := b.Backend.(resource.Changer)
	if !ok && errors.Is(want, resource.ErrUnsupported) {
		return
	}
	if _, err := to.Apply(t.Context(), c); !errors.Is(err, want) {
		t.Errorf("change %d of %s: %v, want %v", c.Op, c.Path, err, want)
	}
}

func put(p resource.Path, value string) resource.Change {
	return resource.Change{Op: resource.OpPut, Path: p, Want: int64(store.Any), Author: "alice", Value: secret.Copy([]byte(value))}
}

// store puts a value in, by whichever way there is.
func (b Backend) store(t *testing.T, path, value string) {
	t.Helper()
	p := Path(t, path)
	if b.Traits().Changes {
		info := b.apply(t, put(p, value))
		if info.Path != path || info.Size != len(value) {
			t.Fatalf("put %s answered %+v", path, info)
		}
		return
	}
	b.Seed(t, p, []byte(value))
}

// want reads a version, 0 for the newest.
func (b Backend) want(t *testing.T, path string, version int64, value string) resource.Item {
	t.Helper()
	item, err := b.Get(t.Context(), Path(t, path), version)
	if err != nil || string(item.Value.Reveal()) != value || item.Info.Path != path || item.Info.Size != len(value) {
		t.Fatalf("get %s version %d: %d bytes, %+v, %v", path, version, item.Value.Len(), item.Info, err)
	}
	return item
}

func (b Backend) absent(t *testing.T, path string, version int64) {
	t.Helper()
	if item, err := b.Get(t.Context(), Path(t, path), version); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s version %d: %+v, %v; want store.ErrNotFound", path, version, item.Info, err)
	}
}

func values(t *testing.T, b Backend) {
	b.absent(t, "repo/type/tag", 0)
	limit := b.MaxValue
	if limit == 0 {
		limit = resource.MaxValue
	}
	all := map[string]string{
		"repo/type/text":   "text",
		"repo/type/binary": string([]byte{0, 1, 0xff, '"', '\n', 0}),
		"repo/type/line":   "with a line feed\n",
		"repo/type/utf8":   "höchst \u2028 geheim",
		"repo/type/large":  strings.Repeat("x", limit),
		"other/type/text":  "another repository",
		"repo/other/text":  "another type",
		"repo/type/text.1": "a tag that begins like another",
	}
	for path, value := range all {
		b.store(t, path, value)
	}
	for path, value := range all {
		b.want(t, path, 0, value)
	}
	b.absent(t, "repo/type/tex", 0)
	if !b.Traits().Changes {
		return
	}
	b.store(t, "repo/type/text", "changed")
	b.want(t, "repo/type/text", 0, "changed")
	b.refuse(t, put(Path(t, "repo/type/large"), strings.Repeat("x", limit+1)), resource.ErrTooLarge)
	b.want(t, "repo/type/large", 0, all["repo/type/large"])
}

func paths(t *testing.T, b Backend) {
	for _, bad := range []resource.Path{{}, {Repo: "a", Type: "b"}, {Repo: "a", Type: "b/c", Tag: "d"}, {Repo: "..", Type: "b", Tag: "c"}} {
		if _, err := b.Get(t.Context(), bad, 0); !errors.Is(err, resource.ErrPath) {
			t.Errorf("get %+v: %v", bad, err)
		}
		if b.Traits().Changes {
			b.refuse(t, put(bad, "x"), resource.ErrPath)
		}
	}
}

// honesty asks for what the traits exclude.
func honesty(t *testing.T, b Backend) {
	tr := b.Traits()
	if _, ok := b.Backend.(resource.Changer); ok != tr.Changes {
		t.Errorf("traits say changes %t, and Changer is %t", tr.Changes, ok)
	}
	if _, ok := b.Backend.(resource.Lister); ok != tr.Lists {
		t.Errorf("traits say lists %t, and Lister is %t", tr.Lists, ok)
	}
	b.store(t, "a/b/c", "value")
	p := Path(t, "a/b/c")
	if !tr.Versions {
		if _, err := b.Get(t.Context(), p, 1); !errors.Is(err, resource.ErrUnsupported) {
			t.Errorf("a version, from a back end without: %v", err)
		}
		for _, op := range []resource.Op{resource.OpRollback, resource.OpDestroy} {
			b.refuse(t, resource.Change{Op: op, Path: p, Want: int64(store.Any), Version: 1}, resource.ErrUnsupported)
		}
	}
	meta := &api.ResourceMeta{Images: []string{"sha256:" + strings.Repeat("0", 64)}}
	if !tr.Metadata {
		b.refuse(t, resource.Change{Op: resource.OpMeta, Path: p, Want: int64(store.Any), Meta: meta}, resource.ErrUnsupported)
		c := put(p, "bound, as its writer believes")
		c.Meta = meta
		b.refuse(t, c, resource.ErrUnsupported)
	}
	if !tr.Compares {
		c := put(p, "compared, as its writer believes")
		c.Want = 1
		b.refuse(t, c, resource.ErrUnsupported)
	}
	b.want(t, "a/b/c", 0, "value")
}

func deletes(t *testing.T, b Backend) {
	p := Path(t, "a/b/c")
	remove := resource.Change{Op: resource.OpDelete, Path: p, Want: int64(store.Any)}
	if !b.Traits().Changes {
		b.refuse(t, remove, resource.ErrUnsupported)
		return
	}
	b.refuse(t, remove, store.ErrNotFound)
	b.store(t, "a/b/c", "one")
	b.store(t, "a/b/d", "other")
	b.apply(t, remove)
	b.absent(t, "a/b/c", 0)
	b.want(t, "a/b/d", 0, "other")
	b.store(t, "a/b/c", "again")
	item := b.want(t, "a/b/c", 0, "again")
	if b.Traits().Versions && item.Info.Value <= 1 {
		t.Errorf("version %d after a delete: an old one could be taken for it", item.Info.Value)
	}
}

func compare(t *testing.T, b Backend) {
	if !b.Traits().Compares {
		return
	}
	p := Path(t, "a/b/c")
	c := put(p, "one")
	for _, want := range []int64{1, 7} {
		c.Want = want
		b.refuse(t, c, store.ErrConflict)
	}
	c.Want = int64(store.Absent)
	first := b.apply(t, c)
	b.refuse(t, c, store.ErrConflict)
	c.Want, c.Value = first.Version, secret.Copy([]byte("two"))
	second := b.apply(t, c)
	b.refuse(t, c, store.ErrConflict)
	if second.Version <= first.Version {
		t.Errorf("versions %d, %d", first.Version, second.Version)
	}
	b.refuse(t, resource.Change{Op: resource.OpDelete, Path: p, Want: first.Version}, store.ErrConflict)
	b.want(t, "a/b/c", 0, "two")
	b.apply(t, resource.Change{Op: resource.OpDelete, Path: p, Want: second.Version})
	b.absent(t, "a/b/c", 0)
}

func versions(t *testing.T, b Backend) {
	if !b.Traits().Versions {
		return
	}
	p := Path(t, "a/b/c")
	var at []int64
	for _, value := range []string{"one", "two", "three"} {
		at = append(at, b.apply(t, put(p, value)).Value)
	}
	b.want(t, "a/b/c", at[0], "one")
	b.want(t, "a/b/c", at[1], "two")
	b.want(t, "a/b/c", 0, "three")
	for _, n := range []int64{-1, at[2] + 1, 1 << 40} {
		b.absent(t, "a/b/c", n)
	}
	change := func(op resource.Op, version int64) resource.Change {
		return resource.Change{Op: op, Path: p, Want: int64(store.Any), Author: "bob", Version: version}
	}
	back := b.apply(t, change(resource.OpRollback, at[0]))
	if back.Value <= at[2] {
		t.Errorf("a rollback made version %d after %d", back.Value, at[2])
	}
	b.want(t, "a/b/c", 0, "one")
	b.want(t, "a/b/c", at[2], "three")
	b.apply(t, change(resource.OpDestroy, at[1]))
	b.absent(t, "a/b/c", at[1])
	b.want(t, "a/b/c", at[0], "one")
	for _, n := range []int64{0, at[1], 1 << 40} {
		b.refuse(t, change(resource.OpRollback, n), store.ErrNotFound)
		b.refuse(t, change(resource.OpDestroy, n), store.ErrNotFound)
	}
	b.refuse(t, change(resource.OpDestroy, back.Value), resource.ErrCurrent)
	b.refuse(t, resource.Change{Op: resource.OpRollback, Path: Path(t, "no/such/one"), Want: int64(store.Any), Version: 1}, store.ErrNotFound)
}

func metadata(t *testing.T, b Backend) {
	if !b.Traits().Metadata {
		return
	}
	p := Path(t, "a/b/c")
	meta := api.ResourceMeta{
		Owner: "team-a", Purpose: "the key of an image", ContentType: "application/octet-stream",
		Expires: time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC), Labels: map[string]string{"env": "prod"},
		Images: []string{"reg.example/app"}, Hold: "until it is signed",
	}
	c := put(p, "one")
	c.Meta = &meta
	b.apply(t, c)
	same := func(got api.ResourceMeta) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(meta) {
			t.Errorf("metadata %+v, want %+v", got, meta)
		}
	}
	same(b.want(t, "a/b/c", 0, "one").Info.ResourceMeta)
	before := b.apply(t, put(p, "two")) // says nothing, so nothing changes
	same(b.want(t, "a/b/c", 0, "two").Info.ResourceMeta)
	meta.Hold, meta.Labels = "", map[string]string{"env": "test", "tier": "1"}
	after := b.apply(t, resource.Change{Op: resource.OpMeta, Path: p, Want: int64(store.Any), Author: "bob", Meta: &meta})
	same(b.want(t, "a/b/c", 0, "two").Info.ResourceMeta)
	if after.Version <= before.Version || after.Value != before.Value || after.Author != "bob" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if b.Traits().Versions {
		same(b.want(t, "a/b/c", before.Value-1, "one").Info.ResourceMeta)
	}
	for name, bad := range map[string]api.ResourceMeta{
		"a line feed":   {Owner: "a\nb"},
		"not UTF-8":     {Purpose: "\xff"},
		"too long":      {Hold: strings.Repeat("x", 300)},
		"label name":    {Labels: map[string]string{"a b": ""}},
		"image tag":     {Images: []string{"reg.example/app:1"}},
		"image digest":  {Images: []string{"sha256:00"}},
		"another hash":  {Images: []string{"sha512:" + strings.Repeat("0", 128)}},
		"an empty one":  {Images: []string{""}},
		"an upper case": {Images: []string{"reg.example/App"}},
	} {
		c := put(p, "x")
		c.Meta = &bad
		b.refuse(t, c, resource.ErrMeta)
		b.refuse(t, resource.Change{Op: resource.OpMeta, Path: p, Want: int64(store.Any), Meta: &bad}, resource.ErrMeta)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	b.refuse(t, resource.Change{Op: resource.OpMeta, Path: Path(t, "no/such/one"), Want: int64(store.Any), Meta: &meta}, store.ErrNotFound)
}

func lists(t *testing.T, b Backend) {
	l, ok := b.Backend.(resource.Lister)
	if !ok {
		return
	}
	if _, err := l.Describe(t.Context(), Path(t, "a/b/c")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("describe nothing: %v", err)
	}
	want := []string{}
	for i := range 23 {
		path := fmt.Sprintf("many/t/%02d", i)
		b.store(t, path, strings.Repeat("v", i))
		want = append(want, path)
	}
	b.store(t, "a/b/c", "v")
	b.store(t, "many2/t/x", "v")
	for _, limit := range []int{1, 2, 7, 23, 24, 100} {
		var got []string
		for _, r := range all(t, l, resource.Query{Prefix: "many/", Limit: limit}) {
			got = append(got, r.Path)
			if r.Size != len(got)-1 {
				t.Errorf("%s has %d bytes", r.Path, r.Size)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("in pages of %d: %v", limit, got)
		}
	}
	for prefix, n := range map[string]int{"": 25, "many": 24, "many/t/0": 10, "a/b/c": 1, "a/b/c/": 0, "%": 0, "z": 0} {
		if got := all(t, l, resource.Query{Prefix: prefix, Limit: 10}); len(got) != n {
			t.Errorf("prefix %q: %d of them, want %d", prefix, len(got), n)
		}
	}
	if _, err := l.List(t.Context(), resource.Query{}); !errors.Is(err, store.ErrLimit) {
		t.Errorf("no limit: %v", err)
	}
	info, err := l.Describe(t.Context(), Path(t, "many/t/05"))
	if err != nil || info.Path != "many/t/05" || info.Size != 5 {
		t.Errorf("describe: %+v, %v", info, err)
	}
}

// all reads a list page by page, and sees that pages are in order and end.
func all(t *testing.T, l resource.Lister, q resource.Query) []api.ResourceInfo {
	t.Helper()
	var out []api.ResourceInfo
	for {
		page, err := l.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) > q.Limit {
			t.Fatalf("a page of %d, at most %d", len(page.Items), q.Limit)
		}
		for _, r := range page.Items {
			if len(out) > 0 && r.Path <= out[len(out)-1].Path {
				t.Fatalf("%s after %s", r.Path, out[len(out)-1].Path)
			}
			out = append(out, r)
		}
		if page.Next == "" {
			return out
		}
		if page.Next <= q.After {
			t.Fatalf("the page after %q ends at %q", q.After, page.Next)
		}
		q.After = page.Next
	}
}

// concurrency: writers of one path do not mix, and those who compare do not
// both win.
func concurrency(t *testing.T, b Backend) {
	if !b.Traits().Changes {
		return
	}
	p := Path(t, "a/b/c")
	b.store(t, "a/b/c", strings.Repeat("-", 100))
	seen, err := b.Get(t.Context(), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := b.Backend.(resource.Changer)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		wg.Go(func() {
			c := put(p, strings.Repeat(fmt.Sprint(i), 100))
			if b.Traits().Compares {
				c.Want = seen.Info.Version
			}
			_, err := to.Apply(context.WithoutCancel(t.Context()), c)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
		wg.Go(func() {
			item, err := b.Get(t.Context(), p, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if v := item.Value.Reveal(); len(v) != 100 || len(bytes.Trim(v, string(v[:1]))) != 0 {
				t.Errorf("a mixture of two values: %s", v)
			}
		})
	}
	wg.Wait()
	if b.Traits().Compares && won != 1 {
		t.Errorf("%d writers saw the same version and won", won)
	}
}

// ownership: the value that Get returns is the caller's.
func ownership(t *testing.T, b Backend) {
	b.store(t, "a/b/c", "value")
	first := b.want(t, "a/b/c", 0, "value")
	first.Value.Destroy()
	second := b.want(t, "a/b/c", 0, "value")
	clear(second.Value.Reveal())
	b.want(t, "a/b/c", 0, "value")
}
