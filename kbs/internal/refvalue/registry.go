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

const prefixValue = "refvalue/"

const (
	// MaxValue bounds the JSON of one value, in bytes.
	MaxValue = 64 << 10
	// DefaultLifetime is how many months a value lives that says nothing about
	// it (kbs-protocol 12.2).
	DefaultLifetime = 12
)

var (
	// ErrName says that a name is not 1 to 256 of [A-Za-z0-9._/-].
	ErrName = errors.New("refvalue: name must be 1 to 256 of letters, digits and - _ . /")
	// ErrValue says that a value is not registrable.
	ErrValue = errors.New("refvalue: invalid value")
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,256}$`)

// Registry is the registrar over the broker's store.
type Registry struct {
	st  store.Store
	now func() time.Time
}

var (
	_ Registrar     = (*Registry)(nil)
	_ Transactional = (*Registry)(nil)
)

// Open returns the registry in st. The clock decides what has expired.
func Open(st store.Store, now func() time.Time) *Registry { return &Registry{st: st, now: now} }

// stored is the record of one value. Value is a byte slice, and so base64 in
// the record, because encoding/json would respace and escape raw JSON.
type stored struct {
	Value   []byte    `json:"value"`
	Expires time.Time `json:"expires"`
	Author  string    `json:"author,omitempty"`
	Time    time.Time `json:"time"`
}

func decode(r store.Record) (api.RefValue, error) {
	name := r.Key[len(prefixValue):]
	var s stored
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return api.RefValue{}, fmt.Errorf("refvalue: the record of %s is damaged: %w", name, err)
	}
	return api.RefValue{Name: name, Version: int64(r.Version), Value: s.Value, Expires: s.Expires, Author: s.Author, Time: s.Time}, nil
}

// Query answers query_reference_value. A name that cannot be registered is as
// absent as one that was not.
func (r *Registry) Query(ctx context.Context, name string) (json.RawMessage, error) {
	v, err := r.Get(ctx, name)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrName) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r.expired(v) {
		return nil, nil
	}
	return v.Value, nil
}

func (r *Registry) expired(v api.RefValue) bool { return !r.now().Before(v.Expires) }

// Get implements Registrar.
func (r *Registry) Get(ctx context.Context, name string) (api.RefValue, error) {
	if !nameForm.MatchString(name) {
		return api.RefValue{}, ErrName
	}
	var v api.RefValue
	err := r.st.View(ctx, func(tx store.Tx) error {
		record, err := tx.Get(prefixValue + name)
		if err != nil {
			return err
		}
		v, err = decode(record)
		return err
	})
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

// PutTx is Put within a transaction.
func (r *Registry) PutTx(tx store.Tx, v api.RefValue) (api.RefValue, error) {
	if !nameForm.MatchString(v.Name) {
		return api.RefValue{}, ErrName
	}
	if err := checkValue(v.Value); err != nil {
		return api.RefValue{}, err
	}
	now := r.now().UTC()
	if v.Expires.IsZero() {
		v.Expires = now.AddDate(0, DefaultLifetime, 0)
	}
	v.Time, v.Expires = now.Truncate(time.Microsecond), v.Expires.UTC().Truncate(time.Second)
	if r.expired(v) {
		return api.RefValue{}, fmt.Errorf("%w: it would have expired at %s", ErrValue, v.Expires.Format(time.RFC3339))
	}
	v.Value = bytes.Clone(v.Value)
	record, err := json.Marshal(stored{Value: v.Value, Expires: v.Expires, Author: v.Author, Time: v.Time})
	if err != nil {
		return api.RefValue{}, fmt.Errorf("refvalue: %w", err)
	}
	version, err := tx.Put(prefixValue+v.Name, record, store.Version(v.Version))
	if err != nil {
		return api.RefValue{}, fmt.Errorf("refvalue: %s: %w", v.Name, err)
	}
	v.Version = int64(version)
	return v, nil
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
	return r.st.Update(ctx, func(tx store.Tx) error { return r.DeleteTx(tx, name) })
}

// DeleteTx is Delete within a transaction.
func (r *Registry) DeleteTx(tx store.Tx, name string) error {
	if !nameForm.MatchString(name) {
		return ErrName
	}
	return tx.Delete(prefixValue+name, store.Any)
}

// page is how many values List reads at once.
const page = 500

// List implements Registrar.
func (r *Registry) List(ctx context.Context, prefix string) ([]api.RefValue, error) {
	var out []api.RefValue
	err := r.st.View(ctx, func(tx store.Tx) error {
		out = nil
		for after := ""; ; {
			records, err := tx.List(prefixValue+prefix, after, page)
			if err != nil {
				return err
			}
			for _, record := range records {
				v, err := decode(record)
				if err != nil {
					return err
				}
				out = append(out, v)
			}
			if len(records) < page {
				return nil
			}
			after = records[len(records)-1].Key
		}
	})
	return out, err
}
