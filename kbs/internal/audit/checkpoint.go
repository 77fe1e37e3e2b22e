package audit

import (
	"bytes"
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
func ParseCheckpoint(msg []byte, vkey string) (Checkpoint, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: public key: %w", ErrCheckpoint, err)
	}
	if len(msg) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(msg))
	}
	n, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c, err := parseBody(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if c.Origin != verifier.Name() {
		return Checkpoint{}, fmt.Errorf("%w: it is about the log %q, and the key is of %q", ErrCheckpoint, c.Origin, verifier.Name())
	}
	return c, nil
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
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("root %q", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	copy(c.Root[:], root)
	return c, nil
}

// Checkpoint returns the signed checkpoint of the log as it stands. It is kept
// in the store, and the next one is signed only if the tree still contains it:
// whoever can write to the store, but has no key, cannot make the broker sign
// a history that contradicts the last checkpoint there.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	var msg []byte
	err := l.st.View(ctx, func(tx store.Tx) error {
		size, err := readHead(tx)
		if err != nil {
			return err
		}
		last, kept, err := l.lastCheckpoint(tx)
		msg = nil
		if kept != nil && last.Size == size {
			msg = kept
		}
		return err
	})
	if err != nil || msg != nil {
		return msg, err
	}
	err = l.st.Update(ctx, func(tx store.Tx) error {
		last, _, err := l.lastCheckpoint(tx)
		if err != nil {
			return err
		}
		size, err := readHead(tx)
		if err != nil {
			return err
		}
		root, err := tlog.TreeHash(size, hashes(tx))
		if err != nil {
			return fmt.Errorf("audit: root: %w", err)
		}
		if err := continues(tx, last, size, root); err != nil {
			return err
		}
		if msg, err = l.sign(Checkpoint{Origin: l.signer.Name(), Size: size, Root: root}); err != nil {
			return err
		}
		_, err = tx.Put(keyCheckpoint, msg, store.Any)
		return err
	})
	if err != nil {
		return nil, err
	}
	return msg, nil
}

// continues checks that the tree about to be signed contains the last one.
// Equal roots at the last size are not enough: the store holds each node of
// the tree by itself.
func continues(tx store.Tx, last Checkpoint, size int64, root tlog.Hash) error {
	if last.Size == 0 {
		return nil
	}
	proof, err := tlog.ProveTree(size, last.Size, hashes(tx))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := tlog.CheckTree(proof, size, root, last.Size, last.Root); err != nil {
		return fmt.Errorf("%w: its tree of %d entries does not contain its last checkpoint, of size %d", ErrTampered, size, last.Size)
	}
	return nil
}

func (l *Log) sign(c Checkpoint) ([]byte, error) {
	msg, err := note.Sign(&note.Note{Text: c.text()}, l.signer)
	if err != nil {
		return nil, fmt.Errorf("audit: sign: %w", err)
	}
	return msg, nil
}

// lastCheckpoint returns the checkpoint in the store, nil if there is none yet,
// after checking that it is ours and that the tree contains it.
func (l *Log) lastCheckpoint(tx store.Tx) (Checkpoint, []byte, error) {
	r, err := tx.Get(keyCheckpoint)
	if errors.Is(err, store.ErrNotFound) {
		return Checkpoint{}, nil, nil
	}
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := parseBody(string(r.Value))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("%w: the last checkpoint: %w", ErrTampered, err)
	}
	// Ed25519 signatures are deterministic: ours can be made again.
	again, err := l.sign(c)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if !bytes.Equal(again, r.Value) {
		return Checkpoint{}, nil, fmt.Errorf("%w: the last checkpoint (of %q) was not signed by the key %q in use", ErrTampered, c.Origin, l.signer.Name())
	}
	size, err := readHead(tx)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if size < c.Size {
		return Checkpoint{}, nil, fmt.Errorf("%w: it has %d entries, and its last checkpoint %d", ErrTampered, size, c.Size)
	}
	root, err := tlog.TreeHash(c.Size, hashes(tx))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("audit: root: %w", err)
	}
	if root != c.Root {
		return Checkpoint{}, nil, fmt.Errorf("%w: its tree contradicts its last checkpoint, of size %d", ErrTampered, c.Size)
	}
	return c, r.Value, nil
}
