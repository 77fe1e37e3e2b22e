package ticket

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

const prefixGroup = "ticket/group/"

const (
	maxSamples = 5   // tickets that a group keeps, the newest
	maxCauses  = 3   // findings that tell causes apart
	maxGroups  = 500 // groups that a listing looks at
)

// errDamaged says that a record cannot be read.
var errDamaged = errors.New("ticket: the record of a group is damaged")

// GroupOf names the root cause of a refusal: refusals of one cause have one
// name, however many guests meet it.
//
// Only what an attested guest's hardware said, or what the broker says itself,
// tells causes apart. What a stranger can make up as he likes would make as
// many groups as he likes.
func GroupOf(e api.Explanation) string {
	policy, _, _ := strings.Cut(e.Policy, "@") // the same cause under the next version
	parts := []string{e.Code, e.Stage, e.Platform, policy, e.Rule}
	if fault.Code(e.Code) == fault.PolicyDenied {
		for _, f := range e.Findings[:min(len(e.Findings), maxCauses)] {
			parts = append(parts, f.Claim, f.Seen)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// count adds a refusal to its group.
func (b *book) count(tx store.Tx, e api.Explanation) error {
	key := prefixGroup + e.Group
	r, err := tx.Get(key)
	var g api.TicketGroup
	switch {
	case errors.Is(err, store.ErrNotFound):
		g = api.TicketGroup{
			ID: e.Group, Code: e.Code, Stage: e.Stage, Platform: e.Platform, Rule: e.Rule, Line: e.Line, First: e.Time,
			Findings: e.Findings[:min(len(e.Findings), maxCauses)],
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(r.Value, &g); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	g.Count++
	g.Last, g.Policy, g.Cause = e.Time, e.Policy, e.Cause
	g.Tickets = append([]string{e.Ticket}, g.Tickets[:min(len(g.Tickets), maxSamples-1)]...)
	value, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("ticket: %w", err)
	}
	_, err = tx.PutUntil(key, value, store.Any, e.Time.Add(b.keep))
	return err
}

// Groups implements [Book].
func (b *book) Groups(ctx context.Context, limit int, silenced bool) ([]api.TicketGroup, error) {
	var out []api.TicketGroup
	err := b.st.View(ctx, func(tx store.Tx) error {
		out = nil
		records, err := tx.List(prefixGroup, "", maxGroups)
		if err != nil {
			return err
		}
		silences, err := b.silences(tx)
		if err != nil {
			return err
		}
		for _, r := range records {
			g, err := b.group(r)
			if err != nil {
				return err
			}
			g.Silence = silences[g.ID]
			if g.ID != "" && (silenced || g.Silence == nil) {
				out = append(out, g)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(x, y api.TicketGroup) int { return y.Last.Compare(x.Last) })
	return out[:min(len(out), limit)], err
}

// Group implements [Book].
func (b *book) Group(ctx context.Context, id string) (g api.TicketGroup, err error) {
	err = b.st.View(ctx, func(tx store.Tx) (err error) {
		g, err = b.groupTx(tx, id)
		return err
	})
	return g, err
}

// groupTx reads a group with its silence.
func (b *book) groupTx(tx store.Tx, id string) (api.TicketGroup, error) {
	r, err := tx.Get(prefixGroup + id)
	if errors.Is(err, store.ErrKey) {
		return api.TicketGroup{}, store.ErrNotFound
	}
	if err != nil {
		return api.TicketGroup{}, err
	}
	g, err := b.group(r)
	if err == nil && g.ID == "" {
		err = store.ErrNotFound
	}
	if err != nil {
		return g, err
	}
	switch r, err = tx.Get(prefixSilence + id); {
	case errors.Is(err, store.ErrNotFound):
		return g, nil
	case err != nil:
		return g, err
	}
	g.Silence, err = b.silence(r)
	return g, err
}

// group reads a record; one that is past its time is as good as gone.
func (b *book) group(r store.Record) (g api.TicketGroup, err error) {
	if !r.Expires.IsZero() && !b.now().Before(r.Expires) {
		return g, nil
	}
	if err := json.Unmarshal(r.Value, &g); err != nil {
		return g, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return g, nil
}
