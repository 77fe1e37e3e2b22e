package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Records in the store. The description's record counts the versions of a
// resource; the sealed value lies apart, so that a listing does not read it.
const (
	prefixInfo  = "resource/info/"
	prefixValue = "resource/value/"
	keyMaster   = "resource/master"
)

// MaxValue bounds one resource, in bytes.
const MaxValue = 1 << 20

// ErrTooLarge says that a value is longer than [MaxValue].
var ErrTooLarge = errors.New("resource: value is too large")

// Builtin is the backend that keeps values in the broker's store.
type Builtin struct {
	st   store.Store
	seal *sealer
	now  func() time.Time
}

var (
	_ Backend       = (*Builtin)(nil)
	_ Transactional = (*Builtin)(nil)
)

// description is the record beside a sealed value. Its bytes are part of what
// the value's seal binds.
type description struct {
	Size   int       `json:"size"`
	Author string    `json:"author,omitempty"`
	Time   time.Time `json:"time"`
}

// OpenBuiltin returns the backend over st, sealed under the 32-byte master key.
// The store remembers which key that is: another one is refused with
// ErrMasterKey before it can do harm.
func OpenBuiltin(st store.Store, master secret.Bytes, now func() time.Time) (*Builtin, error) {
	s, err := newSealer(master)
	if err != nil {
		return nil, err
	}
	b := &Builtin{st: st, seal: s, now: now}
	if err := st.Update(context.Background(), b.pin); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Builtin) pin(tx store.Tx) error {
	r, err := tx.Get(keyMaster)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = tx.Put(keyMaster, b.seal.id[:], store.Absent)
		return err
	case err != nil:
		return err
	case !bytes.Equal(r.Value, b.seal.id[:]):
		return fmt.Errorf("%w: the store is under key %x, this one is %x", ErrMasterKey, r.Value, b.seal.id)
	}
	return nil
}

// check guards the keys of the store against a Path that ParsePath never saw.
func check(p Path) error {
	if q, err := ParsePath(p.String()); err != nil || q != p {
		return ErrPath
	}
	return nil
}

// Get opens the value at p. A record that somebody tampered with is ErrSealed.
func (b *Builtin) Get(ctx context.Context, p Path) (secret.Bytes, error) {
	if err := check(p); err != nil {
		return secret.Bytes{}, err
	}
	var info, value store.Record
	err := b.st.View(ctx, func(tx store.Tx) (err error) {
		if info, err = tx.Get(prefixInfo + p.String()); err != nil {
			return err
		}
		if value, err = tx.Get(prefixValue + p.String()); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: it is gone", ErrSealed)
		}
		return err
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return b.seal.open(value.Value, binding(p.String(), int64(info.Version), info.Value))
}

// Put seals the value as the next version of p.
func (b *Builtin) Put(ctx context.Context, p Path, value secret.Bytes, author string) (api.ResourceInfo, error) {
	var out api.ResourceInfo
	err := b.st.Update(ctx, func(tx store.Tx) (err error) {
		out, err = b.PutTx(tx, p, value, author)
		return err
	})
	if err != nil {
		return api.ResourceInfo{}, err
	}
	return out, nil
}

// PutTx is Put within a transaction.
func (b *Builtin) PutTx(tx store.Tx, p Path, value secret.Bytes, author string) (api.ResourceInfo, error) {
	if err := check(p); err != nil {
		return api.ResourceInfo{}, err
	}
	if value.Len() > MaxValue {
		return api.ResourceInfo{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, value.Len(), MaxValue)
	}
	d := description{Size: value.Len(), Author: author, Time: b.now().UTC().Truncate(time.Microsecond)}
	raw, err := json.Marshal(d)
	if err != nil {
		return api.ResourceInfo{}, fmt.Errorf("resource: %w", err)
	}
	version, err := tx.Put(prefixInfo+p.String(), raw, store.Any)
	if err != nil {
		return api.ResourceInfo{}, fmt.Errorf("resource: %w", err)
	}
	sealed, err := b.seal.seal(value.Reveal(), binding(p.String(), int64(version), raw))
	if err != nil {
		return api.ResourceInfo{}, err
	}
	if _, err := tx.Put(prefixValue+p.String(), sealed, store.Any); err != nil {
		return api.ResourceInfo{}, fmt.Errorf("resource: %w", err)
	}
	return d.info(p.String(), version), nil
}

func (d description) info(path string, v store.Version) api.ResourceInfo {
	return api.ResourceInfo{Path: path, Version: int64(v), Size: d.Size, Author: d.Author, Time: d.Time}
}

// Delete removes the resource at p; store.ErrNotFound if there is none.
func (b *Builtin) Delete(ctx context.Context, p Path) error {
	return b.st.Update(ctx, func(tx store.Tx) error { return b.DeleteTx(tx, p) })
}

// DeleteTx is Delete within a transaction.
func (b *Builtin) DeleteTx(tx store.Tx, p Path) error {
	if err := check(p); err != nil {
		return err
	}
	if err := tx.Delete(prefixInfo+p.String(), store.Any); err != nil {
		return err
	}
	if err := tx.Delete(prefixValue+p.String(), store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// page is how many descriptions List reads at once.
const page = 500

// List describes all resources whose path starts with prefix, in byte order.
// Descriptions are checked only when a value is opened.
func (b *Builtin) List(ctx context.Context, prefix string) ([]api.ResourceInfo, error) {
	var out []api.ResourceInfo
	err := b.st.View(ctx, func(tx store.Tx) error {
		out = nil
		for after := ""; ; {
			records, err := tx.List(prefixInfo+prefix, after, page)
			if err != nil {
				return err
			}
			for _, r := range records {
				var d description
				if err := json.Unmarshal(r.Value, &d); err != nil {
					return fmt.Errorf("resource: the description %s is damaged: %w", r.Key, err)
				}
				out = append(out, d.info(r.Key[len(prefixInfo):], r.Version))
			}
			if len(records) < page {
				return nil
			}
			after = records[len(records)-1].Key
		}
	})
	return out, err
}
