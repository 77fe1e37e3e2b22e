package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Each entry is one record in the store, and there is no other that moves with
// it: an append reads one record and writes one.
//
//	1 byte     version of this layout
//	32 bytes   HMAC-SHA-256 over the index and the two fields that follow
//	32 bytes   leaf hash
//	32 bytes × the number of one bits of the index: the peaks of the tree
//	           before the entry, the largest first
//	the rest   the leaf: canonical JSON
//
// From its peaks and its leaf hash follow all nodes of the tree that the entry
// completes. The code over them is made with a key that is not in the store,
// so that whoever writes to the store cannot append, and cannot make the broker
// extend or sign what is not the log. The leaf lies outside the code: editing
// it leaves the proofs intact that show which leaf was edited.
//
// Keys fall as the index grows, so that the newest entry lists first.
const (
	prefixEntry   = "audit/entry/"
	keyCheckpoint = "audit/checkpoint"
	keyHandovers  = "audit/handovers"

	layout = 1
)

func entryKey(index int64) string {
	return prefixEntry + fmt.Sprintf("%016x", uint64(math.MaxInt64-index))
}

// indexOf is the inverse of entryKey.
func indexOf(key string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(key, prefixEntry), 16, 64)
	if err != nil || n < 0 || entryKey(math.MaxInt64-n) != key {
		return 0, fmt.Errorf("%w: %q is no entry", ErrTampered, key)
	}
	return math.MaxInt64 - n, nil
}

// record is one entry as it is stored.
type record struct {
	index  int64
	mac    []byte
	hashes []byte // of the leaf, then the peaks of the tree of size index
	leaf   []byte
}

func newRecord(before tip, leaf []byte) record {
	hashes := make([]byte, 0, (1+len(before.peaks))*tlog.HashSize)
	hash := tlog.RecordHash(leaf)
	hashes = append(hashes, hash[:]...)
	for _, p := range before.peaks {
		hashes = append(hashes, p[:]...)
	}
	return record{index: before.size, hashes: hashes, leaf: leaf}
}

// parseRecord takes a record apart. It authenticates nothing.
func parseRecord(r store.Record) (record, error) {
	index, err := indexOf(r.Key)
	if err != nil {
		return record{}, err
	}
	hashes := (1 + bits.OnesCount64(uint64(index))) * tlog.HashSize
	if len(r.Value) < 1+sha256.Size+hashes || r.Value[0] != layout {
		return record{}, fmt.Errorf("%w: the record of entry %d is damaged", ErrTampered, index)
	}
	rest := r.Value[1:]
	return record{index, rest[:sha256.Size], rest[sha256.Size:][:hashes], rest[sha256.Size+hashes:]}, nil
}

// sealed returns the stored form, with its code.
func (r record) sealed(key []byte) []byte {
	b := make([]byte, 0, 1+sha256.Size+len(r.hashes)+len(r.leaf))
	b = append(append(b, layout), r.code(key)...)
	return append(append(b, r.hashes...), r.leaf...)
}

func (r record) code(key []byte) []byte {
	h := hmac.New(sha256.New, key)
	var index [8]byte
	binary.BigEndian.PutUint64(index[:], uint64(r.index))
	_, _ = h.Write([]byte("vouchsafe audit record v1\x00"))
	_, _ = h.Write(index[:])
	_, _ = h.Write(r.hashes)
	return h.Sum(nil)
}

// authentic checks that the broker wrote the hashes of the record, for this
// place in the log.
func (r record) authentic(key []byte) error {
	if !hmac.Equal(r.mac, r.code(key)) {
		return fmt.Errorf("%w: the hashes of entry %d were not written by this broker", ErrTampered, r.index)
	}
	return nil
}

// whole checks that the leaf is the one that was hashed.
func (r record) whole() error {
	if tlog.RecordHash(r.leaf) != r.leafHash() {
		return fmt.Errorf("%w: entry %d is not the one that was appended", ErrTampered, r.index)
	}
	return nil
}

func (r record) leafHash() tlog.Hash { return tlog.Hash(r.hashes[:tlog.HashSize]) }

func (r record) peaks() []tlog.Hash {
	out := make([]tlog.Hash, 0, len(r.hashes)/tlog.HashSize)
	for at := tlog.HashSize; at < len(r.hashes); at += tlog.HashSize {
		out = append(out, tlog.Hash(r.hashes[at:at+tlog.HashSize]))
	}
	return out
}

// completes is the level of the largest subtree whose last leaf the entry is.
func (r record) completes() int { return bits.TrailingZeros64(^uint64(r.index)) }

// node returns the hash of the subtree of this level, at most completes, whose
// last leaf the entry is.
func (r record) node(level int) tlog.Hash {
	h, peaks := r.leafHash(), r.peaks()
	for i := range level {
		h = tlog.NodeHash(peaks[len(peaks)-1-i], h)
	}
	return h
}

// tip returns the end of the log that ends with this entry.
func (r record) tip() tip {
	merged := r.completes()
	peaks := r.peaks()
	return tip{size: r.index + 1, peaks: append(peaks[:len(peaks)-merged], r.node(merged))}
}

// tip is the end of the log: all that an append and a checkpoint need to know.
type tip struct {
	size  int64
	peaks []tlog.Hash
}

// root is the hash of RFC 6962 section 2.1 over all entries.
func (t tip) root() tlog.Hash {
	if t.size == 0 {
		return emptyRoot()
	}
	h := t.peaks[len(t.peaks)-1]
	for i := len(t.peaks) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.peaks[i], h)
	}
	return h
}

// readTip reads and authenticates the newest entry.
func readTip(tx store.Tx, key []byte) (tip, error) {
	newest, err := tx.List(prefixEntry, "", 1)
	if err != nil || len(newest) == 0 {
		return tip{}, err
	}
	return endingWith(newest[0], key)
}

// endingWith authenticates an entry, and returns the end of the log that ends
// with it.
func endingWith(newest store.Record, key []byte) (tip, error) {
	r, err := parseRecord(newest)
	if err != nil {
		return tip{}, err
	}
	if err := r.authentic(key); err != nil {
		return tip{}, err
	}
	if err := r.whole(); err != nil {
		return tip{}, err
	}
	return r.tip(), nil
}
