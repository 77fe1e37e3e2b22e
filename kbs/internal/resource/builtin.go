package resource

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Records in the store. A list reads heads only; a move to another master key
// writes heads only.
const (
	prefixHead     = "resource/head/"     // <path>: see record
	prefixValue    = "resource/value/"    // <path>/<version>: sealed
	prefixReleased = "resource/released/" // <path>: see released
	keyCount       = "resource/count"     // how many heads there are, decimal
)

// Keep is how many values of a resource are kept by default.
const Keep = 5

// Config is what the built-in back end needs.
type Config struct {
	Store store.Store // a tenant's scope
	// Keys wraps the data keys. It is bound to the tenant, see tenant.Wrapper.
	Keys kek.Wrapper
	Now  func() time.Time
	// Keep is how many values of a resource are kept, the current one
	// included; 0 is the default. At most 100.
	Keep int
}

// Builtin keeps values in the broker's store. It is safe for concurrent use,
// also by several processes.
type Builtin struct {
	Config
}

var (
	_ Backend       = (*Builtin)(nil)
	_ Changer       = (*Builtin)(nil)
	_ Transactional = (*Builtin)(nil)
	_ Lister        = (*Builtin)(nil)
)

// NewBuiltin returns the back end over a store.
func NewBuiltin(c Config) *Builtin {
	if c.Keep <= 0 {
		c.Keep = Keep
	}
	c.Keep = min(c.Keep, 100)
	return &Builtin{c}
}

// Traits implements Backend: all of them.
func (b *Builtin) Traits() Traits {
	return Traits{Changes: true, Lists: true, Versions: true, Metadata: true, Compares: true}
}

// stored is a record as it was read.
type stored struct {
	record
	head
	at store.Version // of the record
}

func headKey(p Path) string { return prefixHead + p.String() }

func valueKey(p Path, version int64) string {
	return prefixValue + p.String() + "/" + strconv.FormatInt(version, 10)
}

func getHead(tx store.Tx, p Path) (stored, error) {
	r, err := tx.Get(headKey(p))
	if err != nil {
		return stored{}, err
	}
	return readHead(r)
}

func readHead(r store.Record) (s stored, err error) {
	s.at = r.Version
	if s.record, err = parseRecord(r.Value); err != nil {
		return s, err
	}
	s.head, err = s.parseHead()
	return s, err
}

// Get opens a value. A record that somebody tampered with is ErrSealed.
func (b *Builtin) Get(ctx context.Context, p Path, n int64) (Item, error) {
	if err := p.check(); err != nil {
		return Item{}, err
	}
	var s stored
	var v version
	var value store.Record
	err := b.Store.View(ctx, func(tx store.Tx) (err error) {
		if s, err = getHead(tx, p); err != nil {
			return err
		}
		var ok bool
		if v, ok = s.find(n); !ok {
			return fmt.Errorf("version %d of %s: %w", n, p, store.ErrNotFound)
		}
		if value, err = tx.Get(valueKey(p, v.Version)); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: it is gone", ErrSealed)
		}
		return err
	})
	if err != nil {
		return Item{}, err
	}
	secret, err := b.open(ctx, p, s, v, value.Value)
	if err != nil {
		return Item{}, err
	}
	info := s.info(p.String())
	info.Value, info.Size = v.Version, v.Size
	return Item{secret, info}, nil
}

// open checks the head and opens the value of one version.
func (b *Builtin) open(ctx context.Context, p Path, s stored, v version, sealed []byte) (secret.Bytes, error) {
	current, err := b.trusted(ctx, p, s)
	if err != nil {
		return secret.Bytes{}, err
	}
	key := current
	if v.Version != s.current().Version {
		if key, err = b.keyOf(ctx, p, s, v.Version); err != nil {
			return secret.Bytes{}, err
		}
	}
	return key.openValue(sealed, p.String(), v)
}

// trusted returns the data key of the current value, after it has confirmed
// that the head is what was written.
func (b *Builtin) trusted(ctx context.Context, p Path, s stored) (dataKey, error) {
	k, err := b.keyOf(ctx, p, s, s.current().Version)
	if err != nil {
		return dataKey{}, err
	}
	return k, k.checkHead(s.record, p.String(), int64(s.at))
}

func (b *Builtin) keyOf(ctx context.Context, p Path, s stored, version int64) (dataKey, error) {
	wrapped, ok := s.key(version)
	if !ok {
		return dataKey{}, fmt.Errorf("%w: its data key is gone", ErrSealed)
	}
	return openKey(ctx, b.Keys, p.String(), wrapped)
}

// Describe returns what is known of a resource, with its versions.
func (b *Builtin) Describe(ctx context.Context, p Path) (api.ResourceInfo, error) {
	if err := p.check(); err != nil {
		return api.ResourceInfo{}, err
	}
	var info api.ResourceInfo
	err := b.Store.View(ctx, func(tx store.Tx) error {
		s, err := getHead(tx, p)
		if err != nil {
			return err
		}
		info = s.full(p.String())
		return addReleased(tx, &info)
	})
	return info, err
}

// scan bounds how many heads one page may look at.
const scan = 2000

// List describes resources. Heads are confirmed only when a value is opened.
func (b *Builtin) List(ctx context.Context, q Query) (Page, error) {
	if q.Limit < 1 {
		return Page{}, store.ErrLimit
	}
	var page Page
	err := b.Store.View(ctx, func(tx store.Tx) error {
		page = Page{}
		after := ""
		if q.After != "" {
			after = prefixHead + q.After
		}
		for looked := 0; looked < scan; {
			want := min(scan-looked, q.Limit-len(page.Items)+1) // one more tells whether anything follows
			rs, err := tx.List(prefixHead+q.Prefix, after, want)
			if err != nil {
				return err
			}
			for _, r := range rs {
				if len(page.Items) == q.Limit {
					page.Next = after[len(prefixHead):]
					return nil
				}
				after = r.Key
				if err := page.add(tx, q, r); err != nil {
					return err
				}
			}
			if len(rs) < want {
				return nil
			}
			looked += len(rs)
		}
		page.Next = after[len(prefixHead):]
		return nil
	})
	return page, err
}

func (page *Page) add(tx store.Tx, q Query, r store.Record) error {
	s, err := readHead(r)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Key, err)
	}
	info := s.info(r.Key[len(prefixHead):])
	if !q.keeps(info) {
		return nil
	}
	if err := addReleased(tx, &info); err != nil {
		return err
	}
	page.Items = append(page.Items, info)
	return nil
}

// Count returns how many resources there are.
func (b *Builtin) Count(ctx context.Context) (n int64, err error) {
	err = b.Store.View(ctx, func(tx store.Tx) error {
		n, err = CountTx(tx)
		return err
	})
	return n, err
}

// CountTx is Count within a transaction, for a quota that is checked where
// the change is made. The built-in back end counts in the same scope.
func CountTx(tx store.Tx) (int64, error) {
	r, err := tx.Get(keyCount)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(r.Value), 10, 64)
}

func countTx(tx store.Tx, more int64) error {
	n, err := CountTx(tx)
	if err != nil {
		return fmt.Errorf("resource: count: %w", err)
	}
	_, err = tx.Put(keyCount, strconv.AppendInt(nil, n+more, 10), store.Any)
	return err
}
