package audit

import (
	"encoding/json"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree builds the tree of a log from its entries, without a checkpoint of just
// these.
type Tree struct {
	v    verification
	size int64
}

// NewTree returns the tree of what is archived; the zero value is that of nothing.
func NewTree(a Archived) (*Tree, error) {
	t := &Tree{v: verification{archived: a}, size: a.Size}
	return t, t.v.begin()
}

// Add adds the next entry. Another one than the next wraps [ErrTampered].
func (t *Tree) Add(entry json.RawMessage) error {
	err := t.v.add(t.size, entry)
	if err == nil {
		t.size++
	}
	return err
}

// Size is the number of entries, those that are archived included.
func (t *Tree) Size() int64 { return t.size }

// Root is the hash of RFC 6962 section 2.1 over all entries.
func (t *Tree) Root() (tlog.Hash, error) { return tlog.TreeHash(t.size, &t.v) }

// Begins checks that the log of a checkpoint begins with these entries. The proof
// is that of [Log.Consistency] from Size to the checkpoint's.
func (t *Tree) Begins(signed Checkpoint, proof [][]byte) error {
	root, err := t.Root()
	if err != nil {
		return err
	}
	if err := checkTree(proof, signed, Checkpoint{Size: t.size, Root: root}); err != nil {
		return fmt.Errorf("%w: the signed log does not begin with these %d entries: %w", ErrTampered, t.size, err)
	}
	return nil
}
