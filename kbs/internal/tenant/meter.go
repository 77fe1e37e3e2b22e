package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// ErrQuota says that a change would take a tenant beyond one of its quotas.
var ErrQuota = errors.New("tenant: the quota is used up")

const keyUsage = "usage"

// counted says what a record counts as, by the beginning of its key within the
// tenant's scope. What guests cause is not among it: serving them costs no
// count.
var counted = []struct {
	prefix string
	add    func(u *api.TenantUsage, records, bytes int64)
}{
	{"resource/head/", func(u *api.TenantUsage, n, _ int64) { u.Resources += n }},
	{"keyring/provisioner/", func(u *api.TenantUsage, n, _ int64) { u.Resources += n }}, // keys of machines' disks
	{"resource/value/", func(u *api.TenantUsage, _, n int64) { u.Bytes += n }},
	{"policy/head/", func(u *api.TenantUsage, n, _ int64) { u.Policies += n }},
	{"refvalue/name/", func(u *api.TenantUsage, n, _ int64) { u.RefValues += n }},
}

// Meter returns st, which is not a scope, with the records of one tenant
// counted as they are written, in the transaction that writes them. A write
// that would exceed a limit is ErrQuota, and what is at its limit can still be
// made smaller. A limit of 0 is none.
func Meter(st store.Store, name string, limits api.TenantQuotas) store.Store {
	return meter{st, prefix(name), limits}
}

// Usage returns what a tenant uses.
func Usage(ctx context.Context, st store.Store, name string) (api.TenantUsage, error) {
	var u api.TenantUsage
	err := st.View(ctx, func(tx store.Tx) (err error) {
		u, err = readUsage(tx, prefix(name))
		return err
	})
	return u, err
}

func readUsage(tx store.Tx, scope string) (api.TenantUsage, error) {
	var u api.TenantUsage
	r, err := tx.Get(scope + keyUsage)
	if errors.Is(err, store.ErrNotFound) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	if err := json.Unmarshal(r.Value, &u); err != nil {
		return u, fmt.Errorf("the record %s is damaged: %w", r.Key, err)
	}
	return u, nil
}

type meter struct {
	store.Store

	scope  string
	limits api.TenantQuotas
}

func (m meter) Update(ctx context.Context, f func(store.Tx) error) error {
	return m.Store.Update(ctx, func(tx store.Tx) error {
		t := &meteredTx{Tx: tx, scope: m.scope}
		if err := f(t); err != nil {
			return err
		}
		return m.settle(t)
	})
}

// settle adds what a transaction changed to what the tenant uses.
func (m meter) settle(t *meteredTx) error {
	if t.delta == (api.TenantUsage{}) {
		return nil
	}
	u, err := readUsage(t.Tx, m.scope)
	if err != nil {
		return err
	}
	for _, q := range []struct {
		what         string
		used         *int64
		delta, limit int64
	}{
		{"resources", &u.Resources, t.delta.Resources, m.limits.Resources},
		{"bytes of resources", &u.Bytes, t.delta.Bytes, m.limits.Bytes},
		{"policies", &u.Policies, t.delta.Policies, m.limits.Policies},
		{"reference values", &u.RefValues, t.delta.RefValues, m.limits.RefValues},
	} {
		*q.used += q.delta
		if q.delta > 0 && q.limit > 0 && *q.used > q.limit {
			return fmt.Errorf("%w: %d %s would be in use, at most %d may", ErrQuota, *q.used, q.what, q.limit)
		}
	}
	raw, err := json.Marshal(u)
	if err != nil {
		return err
	}
	_, err = t.Tx.Put(m.scope+keyUsage, raw, store.Any)
	return err
}

// meteredTx notes what a transaction changes of what is counted.
type meteredTx struct {
	store.Tx

	scope string
	delta api.TenantUsage
}

// count runs a write and notes its difference.
func (t *meteredTx) count(key string, size int64, write func() error) error {
	name, mine := strings.CutPrefix(key, t.scope)
	if !mine {
		return write()
	}
	for _, c := range counted {
		if !strings.HasPrefix(name, c.prefix) {
			continue
		}
		old, err := t.Tx.Get(key)
		had := err == nil
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := write(); err != nil {
			return err
		}
		if had {
			c.add(&t.delta, -1, -int64(len(old.Value)))
		}
		if size >= 0 {
			c.add(&t.delta, 1, size)
		}
		return nil
	}
	return write()
}

func (t *meteredTx) Put(key string, value []byte, want store.Version) (v store.Version, err error) {
	err = t.count(key, int64(len(value)), func() (err error) {
		v, err = t.Tx.Put(key, value, want)
		return err
	})
	return v, err
}

// PutUntil is not for what is counted: nobody would count it when it goes.
func (t *meteredTx) PutUntil(key string, value []byte, want store.Version, until time.Time) (store.Version, error) {
	for _, c := range counted {
		if strings.HasPrefix(key, t.scope+c.prefix) {
			return 0, fmt.Errorf("tenant: %s is counted, and cannot expire by itself", key)
		}
	}
	return t.Tx.PutUntil(key, value, want, until)
}

func (t *meteredTx) Delete(key string, want store.Version) error {
	return t.count(key, -1, func() error { return t.Tx.Delete(key, want) })
}
