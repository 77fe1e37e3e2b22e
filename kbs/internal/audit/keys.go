package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Ring is where the broker's own keys lie: package keyring. Every replica has
// the same.
type Ring interface {
	Get(ctx context.Context, name string) (secret.Bytes, error)
	LoadOrCreate(ctx context.Context, name string, create func() (secret.Bytes, error)) (secret.Bytes, error)
}

// Names in the ring.
const (
	keySigning = "audit/signing" // generation 0; later ones have a number
	keyRecords = "audit/mac"
)

func signingName(generation int) string {
	if generation == 0 {
		return keySigning
	}
	return fmt.Sprintf("%s/%d", keySigning, generation)
}

// signing is one generation of the key that signs checkpoints.
type signing struct {
	signer note.Signer
	vkey   string
}

// keys are the signing keys as one version of the hand-over record has them.
// They are immutable.
type keys struct {
	version store.Version // of the record; Absent before the first hand-over
	current signing
	trust   Trust // all generations
	said    []string
}

// keeper loads keys, and again once another replica has rotated them.
type keeper struct {
	ring   Ring
	loaded atomic.Pointer[keys]
}

// createSigning makes the text of a new signing key: its secret and its public
// half, a line each. The name of the log is random, so that no two logs share
// one.
func createSigning(origin string) (secret.Bytes, error) {
	if origin == "" {
		origin = "vouchsafe-kbs/" + hex.EncodeToString(secret.Random(8).Reveal())
	}
	skey, vkey, err := NewKey(origin)
	return secret.New([]byte(skey + "\n" + vkey + "\n")), err
}

func parseSigning(text secret.Bytes) (signing, error) {
	skey, vkey, _ := strings.Cut(strings.TrimSpace(string(text.Reveal())), "\n")
	signer, err := note.NewSigner(skey)
	if err != nil {
		return signing{}, errors.New("audit: the signing key in the ring is damaged")
	}
	return signing{signer, vkey}, nil
}

// keysAt returns the keys that the hand-over record says. It must not run
// within a transaction: it may have to ask the ring.
func (k *keeper) keysAt(ctx context.Context, r store.Record) (*keys, error) {
	if have := k.loaded.Load(); have != nil && have.version == r.Version {
		return have, nil
	}
	out := &keys{version: r.Version}
	if r.Version != store.Absent {
		if err := json.Unmarshal(r.Value, &out.said); err != nil {
			return nil, fmt.Errorf("%w: the record of its keys is damaged", ErrTampered)
		}
	}
	first, err := k.ring.LoadOrCreate(ctx, keySigning, func() (secret.Bytes, error) { return createSigning("") })
	if err != nil {
		return nil, fmt.Errorf("audit: signing key: %w", err)
	}
	if out.current, err = parseSigning(first); err != nil {
		return nil, err
	}
	if out.trust, err = NewTrust(out.current.vkey); err != nil {
		return nil, err
	}
	if len(out.said) > 0 {
		if out.trust, err = out.trust.Follow(out.said); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTampered, err)
		}
		text, err := k.ring.Get(ctx, signingName(len(out.said)))
		if err != nil {
			return nil, fmt.Errorf("audit: signing key: %w", err)
		}
		if out.current, err = parseSigning(text); err != nil {
			return nil, err
		}
	}
	if out.current.vkey != out.trust.Current() {
		return nil, fmt.Errorf("%w: the signing key is not the one that it was handed over to", ErrTampered)
	}
	k.loaded.Store(out)
	return out, nil
}

// readHandovers returns the hand-over record, of version Absent if there is none.
func readHandovers(tx store.Tx) (store.Record, error) {
	r, err := tx.Get(keyHandovers)
	if errors.Is(err, store.ErrNotFound) {
		return store.Record{Version: store.Absent}, nil
	}
	return r, err
}

// keys returns the keys in force.
func (l *Log) keys(ctx context.Context) (*keys, error) {
	var r store.Record
	err := l.st.View(ctx, func(tx store.Tx) (err error) {
		r, err = readHandovers(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.keeper.keysAt(ctx, r)
}
