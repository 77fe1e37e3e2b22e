package refvalue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

const prefixSet = "refvalue/set/"

// minReason is how much an administrator has to say to register a document
// without a signature, in characters.
const minReason = 8

// ErrUnsigned says that a document without a signature came without a reason.
var ErrUnsigned = errors.New("refvalue: the document is not signed, and no reason was given to believe it")

// Imported is a document that was opened and judged, and not registered yet.
type Imported struct {
	set    api.RefSet
	values []refvalue.Value
}

// Set describes the document.
func (i Imported) Set() api.RefSet { return i.set }

// Judge opens a document (CoRIM, signed or not) and finds out who vouches for
// it: a registered signer whose key verifies it and who may sign for all of its
// names, or else, in so many words, an administrator. A signature that no
// signer made is refused, whatever the reason given: it is not the same as
// none.
func (r *Registry) Judge(ctx context.Context, raw []byte, reason string) (Imported, error) {
	e, err := refvalue.Open(raw)
	if err != nil {
		return Imported{}, fault.New(fault.InvalidRequest, err)
	}
	var signer api.Signer
	switch {
	case e.Signed():
		if signer, err = r.signerOf(ctx, e); err != nil {
			return Imported{}, err
		}
	case utf8.RuneCountInString(strings.TrimSpace(reason)) < minReason:
		return Imported{}, fault.New(fault.SignatureRejected, ErrUnsigned)
	case len(reason) > maxText || !utf8.ValidString(reason):
		return Imported{}, fault.Newf(fault.InvalidRequest, "the reason must be text of at most %d bytes", maxText)
	}
	d, err := e.Document()
	if err != nil {
		return Imported{}, fault.New(fault.InvalidRequest, err)
	}
	sum := sha256.Sum256(raw)
	set := api.RefSet{
		ID: d.ID, Profile: d.Profile, SHA256: hex.EncodeToString(sum[:]), NotBefore: d.NotBefore, NotAfter: d.NotAfter, Signer: signer.Name,
	}
	if !e.Signed() {
		set.Reason = strings.TrimSpace(reason)
	}
	for _, v := range d.Values {
		if e.Signed() && !mayName(signer, v.Name) {
			return Imported{}, fault.Newf(fault.SignatureRejected, "signer %s may not vouch for %s", signer.Name, v.Name)
		}
		set.Names = append(set.Names, v.Name)
	}
	if !nameForm.MatchString(set.ID) {
		return Imported{}, fault.Newf(fault.InvalidRequest, "the document's id %.80q cannot name a set", set.ID)
	}
	slices.Sort(set.Names)
	for _, p := range d.Provenance {
		set.Provenance = append(set.Provenance, api.RefOrigin{Name: p.Name, SHA256: hex.EncodeToString(p.SHA256)})
	}
	return Imported{set, d.Values}, nil
}

// RegisterTx registers a judged document as the set of its id. An earlier
// document of that id is withdrawn by it: a successor replaces.
func (r *Registry) RegisterTx(tx store.Tx, i Imported, author string, want store.Version) (api.RefSet, error) {
	old, err := tx.Get(prefixSet + i.set.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return api.RefSet{}, err
	default:
		if err := r.forget(tx, old); err != nil {
			return api.RefSet{}, err
		}
	}
	for _, v := range i.values {
		_, err := r.put(tx, v.Name, store.Any, source{
			Set: i.set.ID, Signer: i.set.Signer, Value: v.Value, NotBefore: i.set.NotBefore, Expires: i.set.NotAfter, Author: author,
		})
		if err != nil {
			return api.RefSet{}, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	set := i.set
	set.Author, set.Time = author, r.now().UTC()
	record, err := json.Marshal(set)
	if err != nil {
		return api.RefSet{}, fmt.Errorf("refvalue: %w", err)
	}
	version, err := tx.Put(prefixSet+set.ID, record, want)
	set.Version = int64(version)
	return set, err
}

// WithdrawTx forgets a set and all that it says.
func (r *Registry) WithdrawTx(tx store.Tx, id string, want store.Version) error {
	if !nameForm.MatchString(id) {
		return ErrName
	}
	rec, err := tx.Get(prefixSet + id)
	if err != nil {
		return err
	}
	if err := r.forget(tx, rec); err != nil {
		return err
	}
	return tx.Delete(prefixSet+id, want)
}

// forget takes what a set says out of the values. A value that nobody else
// vouches for is gone.
func (r *Registry) forget(tx store.Tx, rec store.Record) error {
	set, err := decodeSet(rec)
	if err != nil {
		return err
	}
	for _, name := range set.Names {
		s, version, err := get(tx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue // an administrator deleted it
		}
		if err != nil {
			return err
		}
		if !s.remove(set.ID) {
			continue
		}
		if len(s.Sources) == 0 {
			err = r.DeleteTx(tx, name, version)
		} else {
			_, err = write(tx, name, s, version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeSet(rec store.Record) (api.RefSet, error) {
	var set api.RefSet
	if err := json.Unmarshal(rec.Value, &set); err != nil {
		return set, fmt.Errorf("refvalue: the record of set %s is damaged: %w", rec.Key[len(prefixSet):], err)
	}
	set.Version = int64(rec.Version)
	return set, nil
}

// RefSet returns a set; store.ErrNotFound if there is none.
func (r *Registry) RefSet(ctx context.Context, id string) (set api.RefSet, err error) {
	if !nameForm.MatchString(id) {
		return set, ErrName
	}
	err = r.st.View(ctx, func(tx store.Tx) error {
		rec, err := tx.Get(prefixSet + id)
		if err != nil {
			return err
		}
		set, err = decodeSet(rec)
		return err
	})
	return set, err
}

// RefSets lists sets in the order of their ids, after one id and at most limit.
func (r *Registry) RefSets(ctx context.Context, after string, limit int) ([]api.RefSet, error) {
	return list(ctx, r.st, prefixSet, after, limit, decodeSet)
}

// list reads a page of records of one kind.
func list[T any](ctx context.Context, st store.Store, prefix, after string, limit int, decode func(store.Record) (T, error)) ([]T, error) {
	if after != "" {
		after = prefix + after
	}
	var out []T
	err := st.View(ctx, func(tx store.Tx) error {
		out = nil
		records, err := tx.List(prefix, after, limit)
		if err != nil {
			return err
		}
		for _, rec := range records {
			v, err := decode(rec)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}
