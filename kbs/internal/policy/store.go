package policy

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

const keyPrefix = "policy/"

// listLimit bounds a listing: far above what an installation has.
const listLimit = 1000

// record is a policy as stored; its version is that of the record.
type record struct {
	Rego   string    `json:"rego"`
	Author string    `json:"author"`
	Time   time.Time `json:"time"`
}

// Documents keeps policy texts with their versions.
type Documents struct {
	st  store.Store
	now func() time.Time
}

// NewDocuments returns the policies kept in st.
func NewDocuments(st store.Store, now func() time.Time) *Documents {
	return &Documents{st: st, now: now}
}

// Change is called inside the transaction of a change, so that its audit entry
// becomes durable together with it.
type Change func(tx store.Tx, p api.Policy) error

func key(kind Kind, id string) string { return keyPrefix + string(kind) + "/" + id }

// Get returns the current version; store.ErrNotFound if there is none.
func (d *Documents) Get(ctx context.Context, kind Kind, id string) (api.Policy, error) {
	var p api.Policy
	err := d.st.View(ctx, func(tx store.Tx) error {
		r, err := tx.Get(key(kind, id))
		if err != nil {
			return err
		}
		p, err = decode(r)
		return err
	})
	return p, err
}

// List returns all policies in the order of kind and id, without their texts.
func (d *Documents) List(ctx context.Context) ([]api.Policy, error) {
	var out []api.Policy
	err := d.st.View(ctx, func(tx store.Tx) error {
		out = []api.Policy{}
		rs, err := tx.List(keyPrefix, "", listLimit)
		if err != nil {
			return err
		}
		for _, r := range rs {
			p, err := decode(r)
			if err != nil {
				return err
			}
			p.Rego = ""
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// Put stores p if the stored policy is at p.Version (0: absent, -1: any), else
// store.ErrConflict. A text that does not compile is a *SyntaxError.
func (d *Documents) Put(ctx context.Context, p api.Policy, change Change) (api.Policy, error) {
	kind, err := ParseName(p.Kind, p.ID)
	if err != nil {
		return api.Policy{}, err
	}
	if err := Check(kind, p.Rego); err != nil {
		return api.Policy{}, err
	}
	p.Time = d.now().UTC()
	raw, err := json.Marshal(record{Rego: p.Rego, Author: p.Author, Time: p.Time})
	if err != nil {
		return api.Policy{}, fmt.Errorf("encode policy: %w", err)
	}
	p.InForce = InForce(kind, p.ID)
	stored := p
	err = d.st.Update(ctx, func(tx store.Tx) error {
		v, err := tx.Put(key(kind, p.ID), raw, store.Version(p.Version))
		if err != nil {
			return err
		}
		stored.Version = int64(v)
		return change(tx, stored)
	})
	return stored, err
}

// Delete removes a policy at the given version (-1: any). Without a policy its
// decisions refuse; they do not fall back to the default.
func (d *Documents) Delete(ctx context.Context, kind Kind, id string, want int64, change Change) error {
	return d.st.Update(ctx, func(tx store.Tx) error {
		r, err := tx.Get(key(kind, id))
		if err != nil {
			return err
		}
		p, err := decode(r)
		if err != nil {
			return err
		}
		if err := tx.Delete(key(kind, id), store.Version(want)); err != nil {
			return err
		}
		return change(tx, p)
	})
}

// InstallDefaults stores each shipped policy that is absent.
func (d *Documents) InstallDefaults(ctx context.Context, change Change) error {
	for _, p := range Defaults() {
		p.Author = "kbs"
		_, err := d.Put(ctx, p, change)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("install default policy %s/%s: %w", p.Kind, p.ID, err)
		}
	}
	return nil
}

func decode(r store.Record) (api.Policy, error) {
	kind, id, ok := strings.Cut(strings.TrimPrefix(r.Key, keyPrefix), "/")
	if !ok {
		return api.Policy{}, fmt.Errorf("policy record %q has no kind", r.Key)
	}
	var rec record
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return api.Policy{}, fmt.Errorf("policy record %q: %w", r.Key, err)
	}
	return api.Policy{
		Kind: kind, ID: id, Version: int64(r.Version),
		Rego: rec.Rego, Author: rec.Author, Time: rec.Time, InForce: InForce(Kind(kind), id),
	}, nil
}
