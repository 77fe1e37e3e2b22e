package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// index is an immutable picture of which versions are in force and in the
// shadow. A request reads one small record to learn that its picture is still
// true; only after a change are the heads of all policies read again. So a
// thousand policies cost a request what one does, and a change made through
// any replica bites everywhere at once.
type index struct {
	generation store.Version
	parts      map[string]parts // by kind/id
}

// parts are the versions that are evaluated, with the digests of their texts.
type parts struct {
	enforce, shadow       int64
	enforceSum, shadowSum string
}

func indexName(kind Kind, id string) string { return string(kind) + "/" + id }

// current returns an index that is true now.
func (e *Engine) current(ctx context.Context) (*index, error) {
	known := e.index.Load()
	var fresh *index
	err := e.docs.st.View(ctx, func(tx store.Tx) error {
		fresh = nil
		r, err := tx.Get(keyGeneration)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if known != nil && known.generation == r.Version {
			return nil
		}
		fresh, err = readIndex(tx, r.Version)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	if fresh == nil {
		return known, nil
	}
	e.index.Store(fresh)
	return fresh, nil
}

func readIndex(tx store.Tx, generation store.Version) (*index, error) {
	x := &index{generation: generation, parts: map[string]parts{}}
	err := each(tx, keyHead, func(r store.Record) error {
		kind, id, err := splitHead(r.Key)
		if err != nil {
			return err
		}
		h, err := decodeHead(r)
		if err == nil && (h.Enforce != 0 || h.Shadow != 0) {
			x.parts[indexName(kind, id)] = parts{h.Enforce, h.Shadow, h.About.SHA256, h.ShadowSum}
		}
		return err
	})
	return x, err
}

// resource returns the name of the policy that decides about a path of a
// plugin, and of the one whose shadow is asked: the most specific that has a
// version in that part. Empty names mean none.
func (x *index) resource(plugin string, path []string) (enforce, shadow string) {
	for _, id := range candidates(plugin, path) {
		p := x.parts[indexName(Resource, id)]
		if shadow == "" && p.shadow != 0 {
			shadow = id
		}
		if p.enforce != 0 {
			return id, shadow
		}
	}
	return "", shadow
}
