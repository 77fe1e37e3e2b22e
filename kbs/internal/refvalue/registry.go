package refvalue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in the store. keyEpoch changes with every change of a value, so that
// what is kept in memory can tell that it is old, on any replica.
const (
	prefixValue = "refvalue/name/"
	prefixUsed  = "refvalue/used/"
	keyEpoch    = "refvalue/epoch"
)

const (
	// MaxValue bounds the JSON of one value, in bytes.
	MaxValue = 64 << 10
	// DefaultLifetime is how many months a value lives that says nothing about
	// it (kbs-protocol 12.2).
	DefaultLifetime = 12
	// maxText bounds owner and note, in bytes.
	maxText = 1024
)

var (
	// ErrName says that a name is not 1 to 256 of [A-Za-z0-9._/-].
	ErrName = errors.New("refvalue: name must be 1 to 256 of letters, digits and - _ . /")
	// ErrValue says that a value is not registrable.
	ErrValue = errors.New("refvalue: invalid value")
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,256}$`)

// Registry is the registrar over the broker's store. It is safe for concurrent
// use.
type Registry struct {
	st    store.Store
	now   func() time.Time
	usage usage
	index index
}

var (
	_ Registrar     = (*Registry)(nil)
	_ Transactional = (*Registry)(nil)
)

// Open returns the registry in st. The clock decides what has expired.
func Open(st store.Store, now func() time.Time) *Registry { return &Registry{st: st, now: now} }

// Query answers query_reference_value. A name that cannot be registered is as
// absent as one that was not.
func (r *Registry) Query(ctx context.Context, name string) (json.RawMessage, error) {
	if !nameForm.MatchString(name) {
		return nil, nil
	}
	s, _, err := r.read(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now := r.now()
	r.usage.note(name, now)
	return s.merged(now), nil
}

func (r *Registry) read(ctx context.Context, name string) (s stored, v store.Version, err error) {
	err = r.st.View(ctx, func(tx store.Tx) error {
		s, v, err = get(tx, name)
		return err
	})
	return s, v, err
}

func get(tx store.Tx, name string) (stored, store.Version, error) {
	record, err := tx.Get(prefixValue + name)
	if err != nil {
		return stored{}, 0, err
	}
	s, err := decode(record)
	return s, record.Version, err
}

// Get implements Registrar.
func (r *Registry) Get(ctx context.Context, name string) (api.RefValue, error) {
	if !nameForm.MatchString(name) {
		return api.RefValue{}, ErrName
	}
	s, version, err := r.read(ctx, name)
	if err != nil {
		return api.RefValue{}, err
	}
	v := s.describe(name, version, r.now())
	v.LastQueried, err = r.lastQueried(ctx, name)
	return v, err
}

// Put implements Registrar.
func (r *Registry) Put(ctx context.Context, v api.RefValue) (api.RefValue, error) {
	var out api.RefValue
	err := r.st.Update(ctx, func(tx store.Tx) (err error) {
		out, err = r.PutTx(tx, v)
		return err
	})
	if err != nil {
		return api.RefValue{}, err
	}
	return out, nil
}

// PutTx is Put within a transaction: an administrator's own word, beside what
// documents say under the same name.
func (r *Registry) PutTx(tx store.Tx, v api.RefValue) (api.RefValue, error) {
	if len(v.Owner) > maxText || len(v.Note) > maxText {
		return api.RefValue{}, fmt.Errorf("%w: owner and note have at most %d bytes", ErrValue, maxText)
	}
	return r.put(tx, v.Name, store.Version(v.Version), source{
		Value: v.Value, NotBefore: v.NotBefore, Expires: v.Expires, Owner: v.Owner, Note: v.Note, Author: v.Author,
	})
}

// put writes what one source says under a name.
func (r *Registry) put(tx store.Tx, name string, want store.Version, from source) (api.RefValue, error) {
	if !nameForm.MatchString(name) {
		return api.RefValue{}, ErrName
	}
	if err := checkValue(from.Value); err != nil {
		return api.RefValue{}, err
	}
	now := r.now().UTC()
	if from.Expires.IsZero() {
		from.Expires = now.AddDate(0, DefaultLifetime, 0)
	}
	from.Time, from.Expires = now.Truncate(time.Microsecond), from.Expires.UTC().Truncate(time.Second)
	from.NotBefore = from.NotBefore.UTC().Truncate(time.Second)
	switch {
	case !now.Before(from.Expires):
		return api.RefValue{}, fmt.Errorf("%w: it would have expired at %s", ErrValue, from.Expires.Format(time.RFC3339))
	case !from.NotBefore.Before(from.Expires):
		return api.RefValue{}, fmt.Errorf("%w: it would expire before it begins", ErrValue)
	}
	from.Value = bytes.Clone(from.Value)
	s, _, err := get(tx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.RefValue{}, err
	}
	if err := s.put(from); err != nil {
		return api.RefValue{}, err
	}
	version, err := write(tx, name, s, want)
	if err != nil {
		return api.RefValue{}, err
	}
	return s.describe(name, version, now), nil
}

func write(tx store.Tx, name string, s stored, want store.Version) (store.Version, error) {
	record, err := json.Marshal(s)
	if err != nil {
		return 0, fmt.Errorf("refvalue: %w", err)
	}
	version, err := tx.Put(prefixValue+name, record, want)
	if err != nil {
		return 0, fmt.Errorf("refvalue: %s: %w", name, err)
	}
	return version, changed(tx)
}

// changed moves the epoch.
func changed(tx store.Tx) error {
	_, err := tx.Put(keyEpoch, nil, store.Any)
	return err
}

func checkValue(raw json.RawMessage) error {
	switch {
	case len(raw) > MaxValue:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrValue, len(raw), MaxValue)
	case !utf8.Valid(raw) || !json.Valid(raw):
		return fmt.Errorf("%w: it is not well-formed JSON", ErrValue)
	case string(bytes.TrimSpace(raw)) == "null":
		return fmt.Errorf("%w: null means that there is no value; delete it instead", ErrValue)
	}
	return nil
}

// Delete implements Registrar.
func (r *Registry) Delete(ctx context.Context, name string) error {
	return r.st.Update(ctx, func(tx store.Tx) error { return r.DeleteTx(tx, name, store.Any) })
}

// DeleteTx is Delete within a transaction. It forgets all that was said under
// the name, by documents too.
func (r *Registry) DeleteTx(tx store.Tx, name string, want store.Version) error {
	if !nameForm.MatchString(name) {
		return ErrName
	}
	if err := tx.Delete(prefixValue+name, want); err != nil {
		return err
	}
	return changed(tx)
}

// page is how many values List reads at once.
const page = 500

// List implements Registrar.
func (r *Registry) List(ctx context.Context, prefix string) ([]api.RefValue, error) {
	var out []api.RefValue
	for after := ""; ; {
		part, err := r.Page(ctx, prefix, after, page)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
		if len(part) < page {
			return out, nil
		}
		after = part[len(part)-1].Name
	}
}

// Page is part of List: at most limit values whose names sort after `after`.
func (r *Registry) Page(ctx context.Context, prefix, after string, limit int) ([]api.RefValue, error) {
	if after != "" {
		after = prefixValue + after
	}
	now := r.now()
	var out []api.RefValue
	err := r.st.View(ctx, func(tx store.Tx) error {
		out = nil
		records, err := tx.List(prefixValue+prefix, after, limit)
		if err != nil {
			return err
		}
		for _, record := range records {
			s, err := decode(record)
			if err != nil {
				return err
			}
			out = append(out, s.describe(record.Key[len(prefixValue):], record.Version, now))
		}
		return nil
	})
	return out, err
}
