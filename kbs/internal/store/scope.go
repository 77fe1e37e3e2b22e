package store

import (
	"context"
	"strings"
	"time"
)

// Scope returns a view of st that sees only the keys under prefix, without the
// prefix: what is written through it cannot be read or changed through a scope
// of another prefix. Tenants are kept apart by this and nothing else.
//
// A prefix ends in "/" and is short: it takes its length from [MaxKey].
// Closing a scope does nothing; the store belongs to who opened it.
func Scope(st Store, prefix string) Store {
	if !strings.HasSuffix(prefix, "/") || CheckKey(prefix) != nil || len(prefix) > MaxKey/2 {
		panic("store: a scope's prefix must end in a slash and be short: " + prefix)
	}
	return scope{st, prefix}
}

// ScopeTx returns a view of one transaction as [Scope] gives of a store.
func ScopeTx(tx Tx, prefix string) Tx { return scopedTx{tx, prefix} }

// Unscoped returns the transaction below every scope, for what all scopes
// share: the audit log is one chain.
func Unscoped(tx Tx) Tx {
	for {
		s, ok := tx.(scopedTx)
		if !ok {
			return tx
		}
		tx = s.tx
	}
}

type scope struct {
	st     Store
	prefix string
}

func (s scope) View(ctx context.Context, f func(Tx) error) error {
	return s.st.View(ctx, func(tx Tx) error { return f(scopedTx{tx, s.prefix}) })
}

func (s scope) Update(ctx context.Context, f func(Tx) error) error {
	return s.st.Update(ctx, func(tx Tx) error { return f(scopedTx{tx, s.prefix}) })
}

func (s scope) Close() error { return nil }

type scopedTx struct {
	tx     Tx
	prefix string
}

func (t scopedTx) Get(key string) (Record, error) {
	if err := CheckKey(key); err != nil {
		return Record{}, err
	}
	r, err := t.tx.Get(t.prefix + key)
	r.Key = strings.TrimPrefix(r.Key, t.prefix)
	return r, err
}

func (t scopedTx) List(prefix, after string, limit int) ([]Record, error) {
	if after != "" {
		after = t.prefix + after
	}
	rs, err := t.tx.List(t.prefix+prefix, after, limit)
	for i := range rs {
		rs[i].Key = strings.TrimPrefix(rs[i].Key, t.prefix)
	}
	return rs, err
}

func (t scopedTx) Put(key string, value []byte, want Version) (Version, error) {
	if err := CheckKey(key); err != nil {
		return 0, err
	}
	return t.tx.Put(t.prefix+key, value, want)
}

func (t scopedTx) PutUntil(key string, value []byte, want Version, until time.Time) (Version, error) {
	if err := CheckKey(key); err != nil {
		return 0, err
	}
	return t.tx.PutUntil(t.prefix+key, value, want, until)
}

func (t scopedTx) DeleteExpired(prefix string, now time.Time, limit int) (int, error) {
	return t.tx.DeleteExpired(t.prefix+prefix, now, limit)
}

func (t scopedTx) Delete(key string, want Version) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return t.tx.Delete(t.prefix+key, want)
}
