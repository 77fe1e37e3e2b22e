// Package revocation keeps which guests get nothing any more, although their
// tokens are genuine: an administrator said so.
//
// A revocation names one token, a claim that evidence must not show (a chip, a
// measurement), or one lease. The first ends what a guest has and lets it attest
// again; the last keeps one object from one guest (package lease); the
// second keeps every guest out that shows the claim, with the tokens that it
// has and with those that it would like. Evidence is asked about before there
// is a token, and a token each time it is used.
//
// A revocation counts at once on the replica that took it, and within a second
// on all others (package snapshot).
package revocation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/snapshot"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in the tenant's store. The generation has a prefix of its own.
const (
	prefixRevoked = "guest/revoked/"
	keyGeneration = "guest/revocations"
)

// Limits of a list: every token is compared with all of it.
const (
	maxRevocations = 1000
	maxText        = 1024 // bytes of each text
	maxDepth       = 16   // of a claim's path
)

// ErrRevocation says that a revocation names nothing that can be looked for, or
// that there are too many.
var ErrRevocation = errors.New("revocation: name one token_id, a claim and its value, or a lease; with a reason, and an end that is to come, if any")

// List is the revocations of one tenant. It is safe for concurrent use.
type List struct {
	known *snapshot.Set[index]
	now   func() time.Time
	life  time.Duration
}

// index is what is in force, and maybe what has just ended.
type index struct {
	all    []api.GuestRevocation
	tokens map[string]api.GuestRevocation
	claims []api.GuestRevocation
	leases map[string]api.GuestRevocation
}

// Open returns the list in st. life is how long a token of the broker's own
// lives: for so long its revocation is kept.
func Open(st store.Store, life time.Duration, now func() time.Time) *List {
	return &List{snapshot.New(st, keyGeneration, now, read), now, life}
}

func read(tx store.Tx) (index, error) {
	out := index{tokens: map[string]api.GuestRevocation{}, leases: map[string]api.GuestRevocation{}}
	records, err := tx.List(prefixRevoked, "", maxRevocations)
	if err != nil {
		return out, err
	}
	for _, raw := range records {
		var r api.GuestRevocation
		if err := json.Unmarshal(raw.Value, &r); err != nil {
			return out, fmt.Errorf("revocation: the record %s is damaged: %w", raw.Key, err)
		}
		out.all = append(out.all, r)
		switch {
		case r.TokenID != "":
			out.tokens[r.TokenID] = r
		case r.Lease != "":
			out.leases[r.Lease] = r
		default:
			out.claims = append(out.claims, r)
		}
	}
	return out, nil
}

// idOf names a revocation by what it is about, so that there is one of each.
func idOf(r api.GuestRevocation) string {
	text := r.TokenID + "\x00" + r.Claim + "\x00" + strings.ToLower(r.Value)
	if r.Lease != "" {
		text += "\x00" + r.Lease
	}
	sum := sha256.Sum256([]byte(text))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// Add revokes, or says something else about what is revoked already; change is
// called in the same transaction.
func (l *List) Add(ctx context.Context, r api.GuestRevocation, foreign bool, change func(store.Tx, api.GuestRevocation) error) (api.GuestRevocation, error) {
	r.ID, r.Time, r.Until = idOf(r), l.now().UTC(), r.Until.UTC()
	if err := check(r); err != nil {
		return r, err
	}
	if r.TokenID != "" && !foreign && r.Until.IsZero() {
		const leeway = 2 * time.Minute // of verifiers, and more
		r.Until = r.Time.Add(l.life + leeway)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return r, fmt.Errorf("revocation: %w", err)
	}
	err = l.known.Update(ctx, func(tx store.Tx) error {
		err := l.room(tx, r)
		if err != nil {
			return err
		}
		if r.Until.IsZero() {
			_, err = tx.Put(prefixRevoked+r.ID, raw, store.Any)
		} else {
			_, err = tx.PutUntil(prefixRevoked+r.ID, raw, store.Any, r.Until)
		}
		if err != nil {
			return err
		}
		return change(tx, r)
	})
	return r, err
}

// room makes sure that the list can take a revocation. Those that have ended take
// up none, and one that is there already needs none.
func (l *List) room(tx store.Tx, r api.GuestRevocation) error {
	if _, err := tx.DeleteExpired(prefixRevoked, r.Time, maxRevocations); err != nil {
		return err
	}
	if _, err := tx.Get(prefixRevoked + r.ID); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	known, err := tx.List(prefixRevoked, "", maxRevocations)
	if err == nil && len(known) >= maxRevocations {
		err = fmt.Errorf("%w: there are already %d", ErrRevocation, len(known))
	}
	return err
}

func check(r api.GuestRevocation) error {
	for _, text := range []string{r.TokenID, r.Claim, r.Value, r.Lease, r.Reason} {
		if len(text) > maxText {
			return ErrRevocation
		}
	}
	named := 0
	for _, name := range []string{r.TokenID, r.Claim, r.Lease} {
		if name != "" {
			named++
		}
	}
	if named != 1 || (r.Claim == "") != (r.Value == "") || strings.Count(r.Claim, ".") >= maxDepth || r.Reason == "" || !r.Until.IsZero() && !r.Until.After(r.Time) {
		return ErrRevocation
	}
	return nil
}

// Remove takes a revocation back; it is store.ErrNotFound if there is none.
func (l *List) Remove(ctx context.Context, id string, change func(store.Tx, api.GuestRevocation) error) error {
	return l.known.Update(ctx, func(tx store.Tx) error {
		record, err := tx.Get(prefixRevoked + id)
		if errors.Is(err, store.ErrKey) {
			return store.ErrNotFound
		}
		if err != nil {
			return err
		}
		var r api.GuestRevocation
		if err := json.Unmarshal(record.Value, &r); err != nil {
			return fmt.Errorf("revocation: the record %s is damaged: %w", id, err)
		}
		if err := tx.Delete(prefixRevoked+id, store.Any); err != nil {
			return err
		}
		return change(tx, r)
	})
}

// All returns what is in force.
func (l *List) All(ctx context.Context) ([]api.GuestRevocation, error) {
	known, err := l.known.Get(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.GuestRevocation
	for _, r := range known.all {
		if l.holds(r) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (l *List) holds(r api.GuestRevocation) bool { return r.Until.IsZero() || l.now().Before(r.Until) }

// Token refuses a token by its id, with a fault of code TokenInvalid: the guest
// may attest again.
func (l *List) Token(ctx context.Context, id string) error {
	known, err := l.known.Get(ctx)
	if err != nil {
		return fault.Newf(fault.Unavailable, "revocations: %w", err)
	}
	if r, ok := known.tokens[id]; ok && l.holds(r) {
		return fault.New(fault.TokenInvalid, &Revoked{r})
	}
	return nil
}

// Lease refuses to give an object to a guest by the id of their lease, with a
// fault of code GuestRevoked.
func (l *List) Lease(ctx context.Context, id string) error {
	known, err := l.known.Get(ctx)
	if err != nil {
		return fault.Newf(fault.Unavailable, "revocations: %w", err)
	}
	if r, ok := known.leases[id]; ok && l.holds(r) {
		return fault.New(fault.GuestRevoked, &Revoked{r})
	}
	return nil
}

// Ends returns the revocation that ended a lease; nil if none did. Of claims it
// sees those that the lease remembers.
func (l *List) Ends(ctx context.Context, of api.Lease) (*Revoked, error) {
	known, err := l.known.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	for _, r := range []api.GuestRevocation{known.leases[of.ID], known.tokens[of.TokenID]} {
		if r.ID != "" && l.holds(r) {
			return &Revoked{r}, nil
		}
	}
	for _, r := range known.claims {
		if seen, ok := of.Claims[r.Claim]; ok && l.holds(r) && strings.EqualFold(seen, r.Value) {
			return &Revoked{r}, nil
		}
	}
	return nil, nil //nolint:nilnil // none ended it
}

// Evidence refuses annotated evidence (kbs-protocol 9.2) that shows a claim
// which is revoked, with a fault of code GuestRevoked. While no claim is, the
// evidence is not looked at.
func (l *List) Evidence(ctx context.Context, evidence json.RawMessage) error {
	known, err := l.known.Get(ctx)
	if err != nil {
		return fault.Newf(fault.Unavailable, "revocations: %w", err)
	}
	if len(known.claims) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(evidence))
	dec.UseNumber()
	var claims any
	if err := dec.Decode(&claims); err != nil {
		return fault.Newf(fault.Internal, "revocations: evidence: %w", err)
	}
	for _, r := range known.claims {
		if l.holds(r) && shows(claims, strings.Split(r.Claim, "."), r.Value) {
			return fault.New(fault.GuestRevoked, &Revoked{r})
		}
	}
	return nil
}

// shows looks along a path of members; of a list, at each element. Digests are
// written in either case, so case does not count.
func shows(v any, path []string, value string) bool {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			if shows(one, path, value) {
				return true
			}
		}
		return false
	case map[string]any:
		return len(path) > 0 && shows(v[path[0]], path[1:], value)
	case nil:
		return false
	}
	return len(path) == 0 && strings.EqualFold(fmt.Sprint(v), value)
}

// Revoked is the cause of a refusal: for administrators.
type Revoked struct{ api.GuestRevocation }

// Error tells who revoked, and why.
func (r *Revoked) Error() string {
	what := "the token " + r.TokenID
	switch {
	case r.Claim != "":
		what = r.Claim + " = " + r.Value
	case r.Lease != "":
		what = "the lease " + r.Lease
	}
	return fmt.Sprintf("%s is revoked by %s: %s", what, r.Author, r.Reason)
}
