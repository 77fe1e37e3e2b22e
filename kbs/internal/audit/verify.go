package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/jcs"
)

// Report says what Verify found.
type Report struct {
	Checkpoint Checkpoint // what was signed
	First      int64      // the first entry that was read: those before it are archived
	Entries    int64      // how many entries there are, the archived ones too
	// FirstBad is the index of the first entry that the checkpoint does not
	// vouch for, and -1 if it vouches for all, or if the place is not known:
	// the entries and the checkpoint alone do not show which of them was
	// edited in place. See [WithConsistency].
	FirstBad int64
}

// Option adds to what Verify knows.
type Option func(*verification)

// WithConsistency lets Verify find an entry that was edited in place. The
// function returns a consistency proof between two sizes, as [Log.Consistency]
// does; it is asked about log2(size) times, only if the log is bad, and what
// it says is checked.
func WithConsistency(prove func(older, newer int64) ([][]byte, error)) Option {
	return func(v *verification) { v.prove = prove }
}

// WithRemembered adds an older checkpoint of the same log, which somebody kept
// outside the broker: the log must contain that history too.
func WithRemembered(older []byte) Option {
	return func(v *verification) { v.remembered = append(v.remembered, older) }
}

// WithArchived says that the entries begin after those that are archived. Their
// peaks are taken from whoever says so: where they are not those of the log, the
// tree that is built on them is not the one that was signed. And one of the entries
// must say that these were archived: a broker that hides some cannot do so unseen.
func WithArchived(a Archived) Option {
	return func(v *verification) { v.archived = a }
}

// verification is one run of Verify: the tree as the entries themselves give
// it, in the order of tlog's stored hashes.
type verification struct {
	prove      func(older, newer int64) ([][]byte, error)
	remembered [][]byte
	archived   Archived
	peaks      map[int64]tlog.Hash // of what is archived, by their places
	before     int64               // hashes of that tree, which are not here
	said       bool                // by an entry: these were archived
	tree       []tlog.Hash
}

// begin takes the peaks of what is archived.
func (v *verification) begin() error {
	places := peakIndexes(v.archived.Size)
	if len(places) != len(v.archived.Peaks) {
		return fmt.Errorf("%w: a tree of %d entries has %d peaks, not %d", ErrRange, v.archived.Size, len(places), len(v.archived.Peaks))
	}
	v.peaks = map[int64]tlog.Hash{}
	for i, place := range places {
		v.peaks[place] = v.archived.Peaks[i]
	}
	v.before = tlog.StoredHashCount(v.archived.Size)
	return nil
}

// ReadHashes implements tlog.HashReader.
func (v *verification) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		peak, ok := v.peaks[index]
		switch at := index - v.before; {
		case ok:
			out[i] = peak
		case at >= 0 && at < int64(len(v.tree)):
			out[i] = v.tree[at]
		default:
			return nil, fmt.Errorf("%w: node %d", ErrRange, index)
		}
	}
	return out, nil
}

// Verify recomputes the tree from the entries and compares it with the signed
// checkpoint. The entries must be exactly those that the checkpoint covers
// ([ParseCheckpoint] tells its size), from the first on, or from the first that
// is not archived ([WithArchived]). It needs 64 bytes of memory an entry.
//
// The error is nil only if everything agrees. Otherwise it wraps ErrCheckpoint
// if a checkpoint is not to be believed, ErrTampered if the entries are not
// what was signed, or else is an error of the sequence itself.
func Verify(entries iter.Seq2[json.RawMessage, error], checkpoint []byte, trust Trust, options ...Option) (Report, error) {
	var v verification
	for _, o := range options {
		o(&v)
	}
	r := Report{FirstBad: -1}
	var err error
	if r.Checkpoint, err = ParseCheckpoint(checkpoint, trust); err != nil {
		return r, err
	}
	if err := v.begin(); err != nil {
		return r, err
	}
	r.First, r.Entries = v.archived.Size, v.archived.Size
	if r.FirstBad, err = v.read(entries, &r); err != nil {
		return r, err
	}
	if r.Entries < r.Checkpoint.Size {
		r.FirstBad = r.Entries
		return r, fmt.Errorf("%w: it ends after %d entries, and %d were signed", ErrTampered, r.Entries, r.Checkpoint.Size)
	}
	root, err := tlog.TreeHash(r.Entries, &v)
	if err != nil {
		return r, fmt.Errorf("audit: root: %w", err)
	}
	if root != r.Checkpoint.Root {
		switch r.FirstBad = v.locate(r.Checkpoint); r.FirstBad {
		case -1:
			return r, fmt.Errorf("%w: the %d entries are not those that were signed", ErrTampered, r.Entries)
		case r.First:
			before := ""
			if r.First > 0 {
				before = ", what is archived before it"
			}
			return r, fmt.Errorf("%w: entry %d%s, or the tree that the proofs come from, is not what was signed", ErrTampered, r.First, before)
		default:
			return r, fmt.Errorf("%w: entry %d is not the one that was signed", ErrTampered, r.FirstBad)
		}
	}
	if v.archived.Size > 0 && !v.said {
		return r, fmt.Errorf("%w: no entry says that those below %d were archived", ErrTampered, v.archived.Size)
	}
	return r, v.checkRemembered(r.Checkpoint, trust)
}

// read builds the tree and checks the order of the entries. It returns the
// index of the first entry out of order, and -1 if there is none.
func (v *verification) read(entries iter.Seq2[json.RawMessage, error], r *Report) (int64, error) {
	for raw, err := range entries {
		n := r.Entries
		if errors.Is(err, ErrTampered) {
			return n, err // the source itself cannot make sense of it
		}
		if err != nil {
			return -1, fmt.Errorf("audit: entry %d: %w", n, err)
		}
		if n == r.Checkpoint.Size {
			return n, fmt.Errorf("%w: there are entries beyond the %d that were signed", ErrTampered, n)
		}
		if err := v.add(n, raw); errors.Is(err, ErrTampered) {
			return n, err
		} else if err != nil {
			return -1, err
		}
		r.Entries++
	}
	return -1, nil
}

// add takes the entry of this index into the tree.
func (v *verification) add(n int64, raw json.RawMessage) error {
	leaf, index, err := readEntry(raw)
	if err != nil {
		return fmt.Errorf("%w: entry %d cannot be read: %w", ErrTampered, n, err)
	}
	if index != n {
		return fmt.Errorf("%w: in the place of entry %d there is entry %d", ErrTampered, n, index)
	}
	completed, err := tlog.StoredHashes(n, leaf, v)
	if err != nil {
		return fmt.Errorf("audit: entry %d: %w", n, err)
	}
	v.tree = append(v.tree, completed...)
	v.said = v.said || v.archived.Size > 0 && v.archived.saidBy(leaf)
	return nil
}

// readEntry returns the canonical JSON of an entry and its index. What carried
// the entry here may have escaped or spaced it in another way (an encoder that
// writes "\u003c" for "<"); what it says is what counts.
func readEntry(raw json.RawMessage) ([]byte, int64, error) {
	if len(raw) > 6*MaxEntry { // no escape is longer than six bytes
		return nil, 0, ErrEntryTooLarge
	}
	leaf, err := jcs.Transform(raw)
	if err != nil {
		return nil, 0, err
	}
	var e struct {
		Index *int64 `json:"index"`
	}
	if err := json.Unmarshal(leaf, &e); err != nil {
		return nil, 0, err
	}
	if e.Index == nil || *e.Index < 0 {
		return nil, 0, errors.New("audit: the entry has no index")
	}
	return leaf, *e.Index, nil
}

// locate finds the longest run of entries from the first on that the signed
// tree provably contains: each proof that it asks for either shows this or is
// no good. It returns -1 if there is nobody to ask.
func (v *verification) locate(c Checkpoint) int64 {
	if v.prove == nil || c.Size == 0 {
		return -1
	}
	contained := func(n int64) bool {
		root, err := tlog.TreeHash(n, v)
		if err != nil {
			return false
		}
		proof, err := v.prove(n, c.Size)
		if err != nil {
			return false
		}
		return checkTree(proof, c, Checkpoint{Size: n, Root: root}) == nil
	}
	good, bad := v.archived.Size, c.Size // the whole is known to be bad
	for good+1 < bad {
		if mid := good + (bad-good)/2; contained(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	return good
}

func checkTree(proof [][]byte, newer, older Checkpoint) error {
	p, err := parseProof(proof)
	if err != nil {
		return err
	}
	return tlog.CheckTree(p, newer.Size, newer.Root, older.Size, older.Root)
}

func (v *verification) checkRemembered(newer Checkpoint, trust Trust) error {
	for _, msg := range v.remembered {
		older, err := ParseCheckpoint(msg, trust)
		if err != nil {
			return fmt.Errorf("remembered: %w", err)
		}
		if older.Size > newer.Size {
			return fmt.Errorf("%w: it has %d entries, and had %d before", ErrTampered, newer.Size, older.Size)
		}
		if older.Size < v.archived.Size {
			if !v.proven(older, newer) {
				return fmt.Errorf("%w: what was remembered has %d entries, and those below %d are in archives", ErrArchived, older.Size, v.archived.Size)
			}
			continue
		}
		root, err := tlog.TreeHash(older.Size, v)
		if err != nil {
			return fmt.Errorf("audit: root: %w", err)
		}
		if root != older.Root {
			return fmt.Errorf("%w: its first %d entries are not those of the remembered checkpoint", ErrTampered, older.Size)
		}
	}
	return nil
}

// proven reports whether a proof leads from an older checkpoint to a newer one.
// Where entries are archived there is not always one.
func (v *verification) proven(older, newer Checkpoint) bool {
	if v.prove == nil {
		return false
	}
	proof, err := v.prove(older.Size, newer.Size)
	return err == nil && checkTree(proof, newer, older) == nil
}

// VerifyConsistency checks, without any entries, that a remembered older
// checkpoint is a prefix of a newer one. The proof is that of
// [Log.Consistency]; it is empty where the older log was.
func VerifyConsistency(older, newer []byte, proof [][]byte, trust Trust) error {
	was, err := ParseCheckpoint(older, trust)
	if err != nil {
		return fmt.Errorf("older: %w", err)
	}
	is, err := ParseCheckpoint(newer, trust)
	if err != nil {
		return fmt.Errorf("newer: %w", err)
	}
	if was.Size > is.Size {
		return fmt.Errorf("%w: it has %d entries, and had %d before", ErrTampered, is.Size, was.Size)
	}
	if was.Size == 0 {
		if was.Root != emptyRoot() {
			return fmt.Errorf("%w: the root of the empty log is wrong", ErrCheckpoint)
		}
		return nil
	}
	if err := checkTree(proof, is, was); err != nil {
		return fmt.Errorf("%w: the proof does not lead from %d to %d entries: %w", ErrTampered, was.Size, is.Size, err)
	}
	return nil
}

func emptyRoot() tlog.Hash {
	h, _ := tlog.TreeHash(0, nil) // cannot fail: it reads nothing
	return h
}

// VerifyInclusion checks that an entry is in the log of the checkpoint. The proof is that of [Log.Inclusion].
func VerifyInclusion(entry json.RawMessage, checkpoint []byte, proof [][]byte, trust Trust) error {
	c, err := ParseCheckpoint(checkpoint, trust)
	if err != nil {
		return err
	}
	leaf, index, err := readEntry(entry)
	if err != nil {
		return fmt.Errorf("audit: the entry cannot be read: %w", err)
	}
	p, err := parseProof(proof)
	if err != nil {
		return err
	}
	if index >= c.Size {
		return fmt.Errorf("%w: entry %d of %d", ErrRange, index, c.Size)
	}
	if err := tlog.CheckRecord(p, c.Size, c.Root, index, tlog.RecordHash(leaf)); err != nil {
		return fmt.Errorf("%w: the proof does not lead from entry %d to the root: %w", ErrTampered, index, err)
	}
	return nil
}
