package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// ErrMount says that back ends cannot be mounted like this.
var ErrMount = errors.New("resource: malformed mount")

// Mount is a back end at a place.
type Mount struct {
	Name string // shown to administrators; "" is the built-in one
	// Prefix of the paths that it serves: "", "repo/" or "repo/type/".
	Prefix   string
	ReadOnly bool
	Backend  Backend
}

// Mounts joins back ends, each under its prefix; the longest one decides. What
// a back end holds outside of its own prefix, or under the longer prefix of
// another, is not there.
type Mounts struct {
	all []Mount // longest prefix first
}

var (
	_ Backend = (*Mounts)(nil)
	_ Changer = (*Mounts)(nil)
	_ Lister  = (*Mounts)(nil)
)

// NewMounts checks that the prefixes are whole segments and differ.
func NewMounts(all ...Mount) (*Mounts, error) {
	m := &Mounts{slices.Clone(all)}
	slices.SortStableFunc(m.all, func(a, b Mount) int { return len(b.Prefix) - len(a.Prefix) })
	seen := map[string]bool{}
	for _, x := range m.all {
		if seen[x.Prefix] {
			return nil, fmt.Errorf("%w: two at %q", ErrMount, x.Prefix)
		}
		seen[x.Prefix] = true
		if err := CheckPrefix(x.Prefix); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// CheckPrefix returns ErrMount unless a back end can be mounted at prefix.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	segments := strings.Split(strings.TrimSuffix(prefix, "/"), "/")
	if !strings.HasSuffix(prefix, "/") || len(segments) > 2 || !slices.ContainsFunc(segments, validSegment) {
		return fmt.Errorf("%w: prefix %q is not repo/ or repo/type/", ErrMount, prefix)
	}
	for _, s := range segments {
		if !validSegment(s) {
			return fmt.Errorf("%w: prefix %q is not repo/ or repo/type/", ErrMount, prefix)
		}
	}
	return nil
}

// At returns the mount that serves a path; store.ErrNotFound if none does.
func (m *Mounts) At(p Path) (Mount, error) {
	if err := p.check(); err != nil {
		return Mount{}, err
	}
	return m.at(p.String())
}

func (m *Mounts) at(path string) (Mount, error) {
	for _, x := range m.all {
		if strings.HasPrefix(path, x.Prefix) {
			return x, nil
		}
	}
	return Mount{}, fmt.Errorf("no back end is mounted at %s: %w", path, store.ErrNotFound)
}

// Traits implements Backend: what at least one of the back ends can do.
func (m *Mounts) Traits() Traits {
	var t Traits
	for _, x := range m.all {
		u := x.Backend.Traits()
		t.Changes = t.Changes || (u.Changes && !x.ReadOnly)
		t.Lists = t.Lists || u.Lists
		t.Versions = t.Versions || u.Versions
		t.Metadata = t.Metadata || u.Metadata
		t.Compares = t.Compares || u.Compares
	}
	return t
}

// Get implements Backend.
func (m *Mounts) Get(ctx context.Context, p Path, version int64) (Item, error) {
	x, err := m.At(p)
	if err != nil {
		return Item{}, err
	}
	item, err := x.Backend.Get(ctx, p, version)
	item.Info.Backend = x.Name
	return item, err
}

// Run makes a change. Of a transactional back end, in gets the commit; of
// another one the change is made by elsewhere, which gets what to call.
func (m *Mounts) Run(ctx context.Context, c Change, in func(Commit) error, elsewhere func(func() (api.ResourceInfo, error)) error) error {
	x, err := m.At(c.Path)
	switch {
	case err != nil:
		return err
	case x.ReadOnly:
		return fmt.Errorf("%w: %q", ErrReadOnly, x.Prefix)
	}
	if t, ok := x.Backend.(Transactional); ok {
		return t.Run(ctx, c, func(commit Commit) error {
			return in(func(tx store.Tx) (api.ResourceInfo, error) {
				info, err := commit(tx)
				info.Backend = x.Name
				return info, err
			})
		})
	}
	to, ok := x.Backend.(Changer)
	if !ok {
		return ErrUnsupported
	}
	return elsewhere(func() (api.ResourceInfo, error) {
		info, err := to.Apply(ctx, c)
		info.Backend = x.Name
		return info, err
	})
}

// Apply implements Changer.
func (m *Mounts) Apply(ctx context.Context, c Change) (api.ResourceInfo, error) {
	x, err := m.At(c.Path)
	switch to, ok := x.Backend.(Changer); {
	case err != nil:
		return api.ResourceInfo{}, err
	case x.ReadOnly:
		return api.ResourceInfo{}, fmt.Errorf("%w: %q", ErrReadOnly, x.Prefix)
	case !ok:
		return api.ResourceInfo{}, ErrUnsupported
	default:
		info, err := to.Apply(ctx, c)
		info.Backend = x.Name
		return info, err
	}
}

// Describe implements Lister.
func (m *Mounts) Describe(ctx context.Context, p Path) (api.ResourceInfo, error) {
	x, err := m.At(p)
	if err != nil {
		return api.ResourceInfo{}, err
	}
	l, ok := x.Backend.(Lister)
	if !ok {
		return api.ResourceInfo{}, ErrUnsupported
	}
	info, err := l.Describe(ctx, p)
	info.Backend = x.Name
	return info, err
}

// List implements Lister: one list of all back ends that can tell.
func (m *Mounts) List(ctx context.Context, q Query) (Page, error) {
	if q.Limit < 1 {
		return Page{}, store.ErrLimit
	}
	var out Page
	horizon := "" // up to where every back end has been looked through; "" is the end
	for _, x := range m.all {
		l, ok := x.Backend.(Lister)
		if !ok || !meet(q.Prefix, x.Prefix) {
			continue
		}
		page, err := l.List(ctx, q.within(x.Prefix))
		if err != nil {
			return Page{}, fmt.Errorf("back end at %q: %w", x.Prefix, err)
		}
		for _, r := range page.Items {
			if at, err := m.at(r.Path); err == nil && at.Prefix == x.Prefix {
				r.Backend = x.Name
				out.Items = append(out.Items, r)
			}
		}
		if page.Next != "" && (horizon == "" || page.Next < horizon) {
			horizon = page.Next
		}
	}
	slices.SortFunc(out.Items, func(a, b api.ResourceInfo) int { return strings.Compare(a.Path, b.Path) })
	if horizon != "" {
		n, found := slices.BinarySearchFunc(out.Items, horizon, func(r api.ResourceInfo, h string) int { return strings.Compare(r.Path, h) })
		if found {
			n++
		}
		out.Items, out.Next = out.Items[:n], horizon
	}
	if len(out.Items) > q.Limit {
		out.Items = out.Items[:q.Limit]
		out.Next = out.Items[q.Limit-1].Path
	}
	return out, nil
}

// meet reports whether two prefixes have paths in common.
func meet(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// within narrows a query to a mount.
func (q Query) within(prefix string) Query {
	if len(prefix) > len(q.Prefix) {
		q.Prefix = prefix
	}
	return q
}
