package vaultkv

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
)

// maxKeys bounds the names that one folder of the engine may have.
const maxKeys = 100_000

// Describe implements resource.Lister. The engine does not know how large a
// value is, so this reads it.
func (b *Backend) Describe(ctx context.Context, p resource.Path) (api.ResourceInfo, error) {
	item, err := b.Get(ctx, p, 0)
	item.Value.Destroy()
	return item.Info, err
}

// List implements resource.Lister: a page asks for two folders' names, then
// for each resource of it. It is for administrators, not for guests.
func (b *Backend) List(ctx context.Context, q resource.Query) (resource.Page, error) {
	if q.Limit < 1 {
		return resource.Page{}, store.ErrLimit
	}
	var page resource.Page
	err := b.walk(ctx, "", 3, q, func(path string) (bool, error) {
		p, ok := legal(path)
		if !ok {
			return true, nil
		}
		if len(page.Items) == q.Limit {
			page.Next = page.Items[q.Limit-1].Path
			return false, nil
		}
		info, err := b.Describe(ctx, p)
		if errors.Is(err, store.ErrNotFound) {
			return true, nil // deleted, or no secret of ours
		}
		if err != nil {
			return false, err
		}
		page.Items = append(page.Items, info)
		return true, nil
	})
	if q.Owner != "" || len(q.Labels) > 0 || !q.Expires.IsZero() {
		return resource.Page{}, nil // nothing here has an owner, labels or an end
	}
	return page, err
}

// legal sorts out other authors' secrets with names that no guest can ask for.
func legal(path string) (resource.Path, bool) {
	p, err := resource.ParsePath(path)
	return p, err == nil
}

// walk visits the secrets of a folder in order, at most so many levels below
// the mount, until visit says no.
func (b *Backend) walk(ctx context.Context, folder string, levels int, q resource.Query, visit func(string) (bool, error)) error {
	_, err := b.level(ctx, folder, levels, q, visit)
	return err
}

func (b *Backend) level(ctx context.Context, folder string, levels int, q resource.Query, visit func(string) (bool, error)) (going bool, err error) {
	keys, err := b.keys(ctx, folder)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		name, isFolder := strings.CutSuffix(key, "/")
		path := folder + name
		if isFolder != (levels > 1) {
			continue
		}
		if isFolder {
			below := path + "/"
			if !overlap(below, q.Prefix) || q.After != "" && q.After > below && !strings.HasPrefix(q.After, below) {
				continue
			}
			if going, err := b.level(ctx, below, levels-1, q, visit); !going || err != nil {
				return false, err
			}
			continue
		}
		if !strings.HasPrefix(path, q.Prefix) || path <= q.After {
			continue
		}
		if going, err := visit(path); !going || err != nil {
			return false, err
		}
	}
	return true, nil
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// keys lists a folder, in order of the paths that follow from it.
func (b *Backend) keys(ctx context.Context, folder string) ([]string, error) {
	var out struct {
		Keys []string `json:"keys"`
	}
	err := b.do(ctx, vault.Call{Method: "LIST", Path: b.mount + "/metadata/" + folder}, &out)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(out.Keys) > maxKeys {
		return nil, resource.ErrTooLarge
	}
	slices.Sort(out.Keys)
	return out.Keys, nil
}
