package audit

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// ErrCheckpoint says that a checkpoint is malformed, or not signed by the key.
var ErrCheckpoint = errors.New("audit: invalid checkpoint")

// maxCheckpoint bounds a checkpoint, in bytes.
const maxCheckpoint = 64 << 10

// NewKey makes an Ed25519 key pair for a log of the given name, in the text
// form of signed notes: skey is secret and for note.NewSigner, vkey is public
// and for [Verify].
func NewKey(name string) (skey, vkey string, err error) {
	skey, vkey, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", fmt.Errorf("audit: key: %w", err)
	}
	if _, err := note.NewSigner(skey); err != nil { // the library checks names only here
		return "", "", fmt.Errorf("audit: key name %q: %w", name, err)
	}
	return skey, vkey, nil
}

// Checkpoint is a statement about a log: these are its first Size entries.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// text returns the body of C2SP tlog-checkpoint.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint checks the signature of a checkpoint and reads it (C2SP
// tlog-checkpoint; extension lines are ignored). Its errors wrap
// [ErrCheckpoint].
func ParseCheckpoint(msg []byte, trust Trust) (Checkpoint, error) {
	if len(msg) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(msg))
	}
	n, err := note.Open(msg, trust.verifiers())
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c, err := parseBody(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if c.Origin != trust.Origin() {
		return Checkpoint{}, fmt.Errorf("%w: it is about the log %q, and the key is of %q", ErrCheckpoint, c.Origin, trust.Origin())
	}
	for _, s := range n.Sigs {
		if trust.speaks(s.Hash, c.Size) {
			return c, nil
		}
	}
	return Checkpoint{}, fmt.Errorf("%w: its key was not in force for a log of %d entries", ErrCheckpoint, c.Size)
}

func parseBody(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 || lines[0] == "" {
		return Checkpoint{}, errors.New("it has fewer than three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("size %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize || base64.StdEncoding.EncodeToString(root) != lines[2] { // a decoder skips CR
		return Checkpoint{}, fmt.Errorf("root %q", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	copy(c.Root[:], root)
	return c, nil
}

// errRotated says that the signing key changed between two transactions.
var errRotated = errors.New("audit: the signing key was rotated meanwhile")

// Checkpoint returns the signed checkpoint of the log as it stands. It reads
// the newest entry, and of the others only what a consistency proof needs.
//
// The checkpoint is kept in the store, and the next one is signed only if the
// tree still contains it: whoever can write to the store, but has no key,
// cannot make the broker sign a history that contradicts the last checkpoint
// there. Replicas agree on the one checkpoint of each size, because all of it,
// the signature included, follows from the size, the root and the key.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	var msg []byte
	err := l.withKeys(ctx, func(k *keys) (err error) {
		if msg, err = l.kept(ctx, k); err == nil && msg == nil {
			msg, err = l.renew(ctx, k)
		}
		return err
	})
	return msg, err
}

// withKeys calls f with the keys in force, again if they change meanwhile.
func (l *Log) withKeys(ctx context.Context, f func(*keys) error) error {
	for {
		k, err := l.keys(ctx)
		if err != nil {
			return err
		}
		if err := f(k); !errors.Is(err, errRotated) {
			return err
		}
	}
}

// kept returns the checkpoint in the store if it is of the log as it stands.
func (l *Log) kept(ctx context.Context, k *keys) ([]byte, error) {
	var msg []byte
	var end tip
	before := l.seen.Load()
	err := l.st.View(ctx, func(tx store.Tx) error {
		msg = nil
		var err error
		if end, err = readTip(tx, l.mac.Reveal()); err != nil {
			return err
		}
		last, raw, err := l.lastCheckpoint(tx, k, end)
		if err == nil && raw != nil && last.Size == end.size {
			msg = raw
		}
		return errors.Join(err, grown(end, before))
	})
	if err != nil {
		return nil, err
	}
	l.saw(end.size)
	return msg, nil
}

// renew signs the log as it stands.
func (l *Log) renew(ctx context.Context, k *keys) ([]byte, error) {
	var msg []byte
	var end tip
	before := l.seen.Load()
	err := l.st.Update(ctx, func(tx store.Tx) error {
		var err error
		if end, err = readTip(tx, l.mac.Reveal()); err != nil {
			return err
		}
		if err := grown(end, before); err != nil {
			return err
		}
		last, raw, err := l.lastCheckpoint(tx, k, end)
		if err != nil {
			return err
		}
		if raw != nil && last.Size == end.size { // another replica was first
			msg = raw
			return nil
		}
		c := Checkpoint{Origin: k.trust.Origin(), Size: end.size, Root: end.root()}
		if msg, err = note.Sign(&note.Note{Text: c.text()}, k.current.signer); err != nil {
			return fmt.Errorf("audit: sign: %w", err)
		}
		_, err = tx.Put(keyCheckpoint, msg, store.Any)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.saw(end.size)
	return msg, nil
}

// lastCheckpoint returns the checkpoint in the store, nil if there is none yet,
// after checking that it is ours and that the log still contains it.
func (l *Log) lastCheckpoint(tx store.Tx, k *keys, end tip) (Checkpoint, []byte, error) {
	said, err := readHandovers(tx)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if said.Version != k.version {
		return Checkpoint{}, nil, errRotated
	}
	r, err := tx.Get(keyCheckpoint)
	if errors.Is(err, store.ErrNotFound) {
		return Checkpoint{}, nil, nil
	}
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := ParseCheckpoint(r.Value, k.trust)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: the last checkpoint is not ours: %w", ErrTampered, err)
	}
	if end.size < c.Size {
		return Checkpoint{}, nil, fmt.Errorf("%w: it has %d entries, and its last checkpoint %d", ErrTampered, end.size, c.Size)
	}
	if c.Size == 0 {
		return c, r.Value, nil
	}
	proof, err := tlog.ProveTree(end.size, c.Size, l.hashes(tx))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("audit: %w", err)
	}
	if err := tlog.CheckTree(proof, end.size, end.root(), c.Size, c.Root); err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: its tree of %d entries does not contain its last checkpoint, of size %d", ErrTampered, end.size, c.Size)
	}
	return c, r.Value, nil
}
