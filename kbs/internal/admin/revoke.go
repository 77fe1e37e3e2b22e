package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/snapshot"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records of what was revoked, in the unscoped store.
const (
	prefixRevoked    = "admin/revoked/"
	keyRevocations   = "admin/revocations"
	maxRevocations   = 10_000
	maxRevokedReason = 1024
)

// ErrRevocation says that a revocation names nobody, or that there are too many.
var ErrRevocation = errors.New("admin: a revocation names an issuer, and either a token id or a subject")

// Revocation is one token that no longer counts, or all tokens of a subject that
// were issued until then. It is forgotten when every such token has expired by
// itself: tokens live for a bounded time, and so the list is bounded.
type Revocation = api.Revocation

type revokedKey struct{ issuer, token, subject string }

func keyOf(r Revocation) revokedKey { return revokedKey{r.Issuer, r.TokenID, r.Subject} }

// record names are hashes, because issuers are URLs and ids are anything.
func (k revokedKey) record() string {
	raw, _ := json.Marshal([]string{k.issuer, k.token, k.subject}) // strings always encode
	sum := sha256.Sum256(raw)
	return prefixRevoked + hex.EncodeToString(sum[:])
}

// Revocations is the list of what was revoked. It is safe for concurrent use.
type Revocations struct {
	known *snapshot.Set[map[revokedKey]Revocation]
	now   func() time.Time
	keep  time.Duration
}

// OpenRevocations returns the list in st, which is not a scope. keep is the
// longest that any accepted token lives.
func OpenRevocations(st store.Store, keep time.Duration, now func() time.Time) *Revocations {
	return &Revocations{snapshot.New(st, keyRevocations, now, readRevocations), now, keep}
}

func readRevocations(tx store.Tx) (map[revokedKey]Revocation, error) {
	all, err := tx.List(prefixRevoked, "", maxRevocations)
	if err != nil {
		return nil, err
	}
	out := make(map[revokedKey]Revocation, len(all))
	for _, raw := range all {
		var r Revocation
		if err := json.Unmarshal(raw.Value, &r); err != nil {
			return nil, fmt.Errorf("the revocation %s is damaged: %w", raw.Key, err)
		}
		out[keyOf(r)] = r
	}
	return out, nil
}

// Revoked reports whether a token was revoked by its id, or with all others
// that its subject had.
func (l *Revocations) Revoked(ctx context.Context, id Identity) (bool, error) {
	known, err := l.known.Get(ctx)
	if err != nil || len(known) == 0 {
		return false, err
	}
	if _, ok := known[revokedKey{issuer: id.Issuer, token: id.TokenID}]; ok && id.TokenID != "" {
		return true, nil
	}
	r, ok := known[revokedKey{issuer: id.Issuer, subject: id.Subject}]
	// Issue times are whole seconds: one of the same second counts as before.
	return ok && id.Subject != "" && !id.Issued.After(r.Time), nil
}

// List returns what is revoked.
func (l *Revocations) List(ctx context.Context) ([]Revocation, error) {
	known, err := l.known.Get(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Revocation, 0, len(known))
	for _, r := range known {
		out = append(out, r)
	}
	return out, nil
}

// Add revokes; change is called in the same transaction. What every holder's
// expiry has made pointless is dropped on the way.
func (l *Revocations) Add(ctx context.Context, r Revocation, change func(store.Tx, Revocation) error) (Revocation, error) {
	if r.Issuer == "" || (r.TokenID == "") == (r.Subject == "") || len(r.Reason) > maxRevokedReason ||
		len(r.Issuer) > maxText || len(r.TokenID) > maxText || len(r.Subject) > maxText {
		return Revocation{}, ErrRevocation
	}
	r.Time = l.now().UTC()
	r.Expires = r.Time.Add(l.keep + leeway)
	raw, err := json.Marshal(r)
	if err != nil {
		return Revocation{}, err
	}
	err = l.known.Update(ctx, func(tx store.Tx) error {
		left, err := l.drop(tx)
		if err != nil {
			return err
		}
		if left >= maxRevocations {
			return fmt.Errorf("%w: there are already %d", ErrRevocation, left)
		}
		if _, err := tx.Put(keyOf(r).record(), raw, store.Any); err != nil {
			return err
		}
		return change(tx, r)
	})
	return r, err
}

// drop deletes what is pointless and counts the rest.
func (l *Revocations) drop(tx store.Tx) (int, error) {
	all, err := tx.List(prefixRevoked, "", maxRevocations)
	if err != nil {
		return 0, err
	}
	left := 0
	for _, raw := range all {
		var r Revocation
		if err := json.Unmarshal(raw.Value, &r); err == nil && l.now().After(r.Expires) {
			if err := tx.Delete(raw.Key, store.Any); err != nil {
				return 0, err
			}
			continue
		}
		left++
	}
	return left, nil
}
