package resource_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// plain is a back end that can only read, like a secret manager elsewhere.
type plain map[string]string

func (plain) Traits() resource.Traits { return resource.Traits{} }

func (p plain) Get(_ context.Context, at resource.Path, version int64) (resource.Item, error) {
	if _, err := resource.ParsePath(at.String()); err != nil {
		return resource.Item{}, err
	}
	if version != 0 {
		return resource.Item{}, resource.ErrUnsupported
	}
	v, ok := p[at.String()]
	if !ok {
		return resource.Item{}, store.ErrNotFound
	}
	return resource.Item{Value: secret.Copy([]byte(v)), Info: api.ResourceInfo{Path: at.String(), Size: len(v)}}, nil
}

// The contract can be kept by a back end that does next to nothing.
func TestPlainBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backendtest.Backend {
		p := plain{}
		return backendtest.Backend{Backend: p, Seed: func(_ *testing.T, at resource.Path, v []byte) { p[at.String()] = string(v) }}
	})
}

func stored(t *testing.T, b resource.Backend, path, value string) {
	t.Helper()
	c := resource.Change{Op: resource.OpPut, Path: backendtest.Path(t, path), Want: -1, Value: secret.Copy([]byte(value))}
	if _, err := b.(resource.Changer).Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestTheLongestPrefixDecides(t *testing.T) {
	root, team, frozen := builtin(t), builtin(t), builtin(t)
	for name, b := range map[string]resource.Backend{"root": root, "team": team, "frozen": frozen} {
		for _, p := range []string{"x/y/z", "team/y/z", "team/keys/z", "teams/y/z"} {
			stored(t, b, p, name)
		}
	}
	m, err := resource.NewMounts(
		resource.Mount{Backend: root},
		resource.Mount{Name: "team", Prefix: "team/", Backend: team},
		resource.Mount{Name: "frozen", Prefix: "team/keys/", ReadOnly: true, Backend: frozen},
		resource.Mount{Name: "plain", Prefix: "other/", Backend: plain{"other/a/b": "plain"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"x/y/z": "root", "team/y/z": "team", "team/keys/z": "frozen", "teams/y/z": "root", "other/a/b": "plain"}
	for p, value := range want {
		item, err := m.Get(t.Context(), backendtest.Path(t, p), 0)
		name := strings.TrimPrefix(value, "root")
		if err != nil || string(item.Value.Reveal()) != value || item.Info.Backend != name {
			t.Errorf("%s: %q from %q, %v", p, item.Value.Reveal(), item.Info.Backend, err)
		}
	}
	for _, limit := range []int{1, 2, 3, 10} {
		var got []string
		for q := (resource.Query{Limit: limit}); ; {
			page, err := m.List(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Items {
				got = append(got, r.Path+"="+r.Backend)
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
		if !slices.Equal(got, []string{"team/keys/z=frozen", "team/y/z=team", "teams/y/z=", "x/y/z="}) {
			t.Errorf("in pages of %d: %v", limit, got)
		}
	}
	change := func(p string) error {
		_, err := m.Apply(t.Context(), resource.Change{Op: resource.OpDelete, Path: backendtest.Path(t, p), Want: -1})
		return err
	}
	for p, want := range map[string]error{"team/keys/z": resource.ErrReadOnly, "other/a/b": resource.ErrUnsupported, "team/y/z": nil} {
		if err := change(p); !errors.Is(err, want) {
			t.Errorf("delete %s: %v", p, err)
		}
	}
	if _, err := m.Describe(t.Context(), backendtest.Path(t, "other/a/b")); !errors.Is(err, resource.ErrUnsupported) {
		t.Errorf("describe: %v", err)
	}
	if item, err := root.Get(t.Context(), backendtest.Path(t, "team/y/z"), 0); err != nil || string(item.Value.Reveal()) != "root" {
		t.Errorf("a delete reached what is shadowed: %v", err)
	}
}

func TestBadMounts(t *testing.T) {
	b := plain{}
	for _, bad := range []string{"a", "/", "/a/", "a//", "a/b/c/", "a/../", "a/b", "."} {
		if _, err := resource.NewMounts(resource.Mount{Prefix: bad, Backend: b}); !errors.Is(err, resource.ErrMount) {
			t.Errorf("prefix %q: %v", bad, err)
		}
	}
	if _, err := resource.NewMounts(resource.Mount{Prefix: "a/", Backend: b}, resource.Mount{Prefix: "a/", Backend: b}); !errors.Is(err, resource.ErrMount) {
		t.Errorf("two at one place: %v", err)
	}
	m, err := resource.NewMounts(resource.Mount{Prefix: "a/", Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(t.Context(), backendtest.Path(t, "b/c/d"), 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("where nothing is mounted: %v", err)
	}
}

func TestReleasable(t *testing.T) {
	now := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	digest := "sha256:" + strings.Repeat("ab", 32)
	other := "sha256:" + strings.Repeat("cd", 32)
	for name, tt := range map[string]struct {
		meta  api.ResourceMeta
		image resource.Image
		want  error
	}{
		"nothing said":            {api.ResourceMeta{}, resource.Image{}, nil},
		"held":                    {api.ResourceMeta{Hold: "x"}, resource.Image{}, resource.ErrHeld},
		"not yet":                 {api.ResourceMeta{Expires: now.Add(time.Second)}, resource.Image{}, nil},
		"expired":                 {api.ResourceMeta{Expires: now}, resource.Image{}, resource.ErrExpired},
		"digest":                  {api.ResourceMeta{Images: []string{other, digest}}, resource.Image{Digest: digest}, nil},
		"another digest":          {api.ResourceMeta{Images: []string{other}}, resource.Image{Digest: digest}, resource.ErrImage},
		"no image":                {api.ResourceMeta{Images: []string{digest}}, resource.Image{}, resource.ErrImage},
		"repository":              {api.ResourceMeta{Images: []string{"reg.example:5000/team"}}, resource.Image{Digest: digest, Reference: "reg.example:5000/team/app:1"}, nil},
		"the very repository":     {api.ResourceMeta{Images: []string{"reg.example/team/app"}}, resource.Image{Reference: "reg.example/team/app@" + digest}, nil},
		"half a name":             {api.ResourceMeta{Images: []string{"reg.example/team/ap"}}, resource.Image{Reference: "reg.example/team/app:1"}, resource.ErrImage},
		"another registry":        {api.ResourceMeta{Images: []string{"reg.example/team"}}, resource.Image{Reference: "reg.example.evil/team/app"}, resource.ErrImage},
		"another port":            {api.ResourceMeta{Images: []string{"reg.example/team"}}, resource.Image{Reference: "reg.example:1/team/app"}, resource.ErrImage},
		"a digest in a reference": {api.ResourceMeta{Images: []string{digest}}, resource.Image{Reference: "evil.example/x@" + digest}, resource.ErrImage},
	} {
		err := resource.Releasable(tt.meta, tt.image, now)
		var no *resource.Withheld
		if !errors.Is(err, tt.want) || (err != nil && (!errors.As(err, &no) || no.Finding.Claim == "" || no.Finding.Seen == "")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range [][2]string{{"sha256:00", ""}, {"sha512:" + strings.Repeat("a", 128), ""}, {"", "a b"}, {"", "reg/../x"}, {"", strings.Repeat("a/", 600)}, {"", "reg.example/x\n"}} {
		if i, err := resource.ParseImage(bad[0], bad[1]); !errors.Is(err, resource.ErrMeta) {
			t.Errorf("image %q: %+v, %v", bad, i, err)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add("sha256:"+strings.Repeat("0", 64), "reg.example/app:1")
	f.Fuzz(func(t *testing.T, digest, reference string) {
		i, err := resource.ParseImage(digest, reference)
		if err != nil {
			return
		}
		m := api.ResourceMeta{Images: []string{"reg.example/app"}}
		if resource.Releasable(m, i, time.Now()) == nil && !strings.HasPrefix(reference, "reg.example/app") {
			t.Fatalf("%q is taken for reg.example/app", reference)
		}
	})
}

// What goes out is counted, and a count that cannot be written is not lost.
func TestReleases(t *testing.T) {
	b := builtin(t).(*resource.Builtin)
	for i := range 3 {
		stored(t, b, fmt.Sprintf("a/b/%d", i), "v")
	}
	clock := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	r := resource.NewReleases(func() time.Time { return clock })
	add := func(path string, n int) {
		for range n {
			r.Add("x", b.Store, backendtest.Path(t, path))
		}
	}
	add("a/b/0", 5)
	add("a/b/1", 1)
	add("a/b/gone", 2)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Flush(cancelled); err == nil {
		t.Fatal("a flush that cannot write says nothing")
	}
	add("a/b/0", 2)
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int64{"a/b/0": 7, "a/b/1": 1, "a/b/2": 0} {
		info, err := b.Describe(t.Context(), backendtest.Path(t, path))
		if err != nil || info.Released != want || (want > 0) == info.LastReleased.IsZero() {
			t.Errorf("%s: %+v, %v; want %d", path, info, err, want)
		}
	}
	add("a/b/2", 1)
	r.Run(cancelled) // the last flush of a broker that stops
	if info, err := b.Describe(t.Context(), backendtest.Path(t, "a/b/2")); err != nil || info.Released != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	page, err := b.List(t.Context(), resource.Query{Limit: 10})
	if err != nil || page.Items[0].Released != 7 {
		t.Errorf("%+v, %v", page, err)
	}
}
