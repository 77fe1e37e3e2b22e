package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Filter selects entries. What is empty selects all.
type Filter struct {
	Kind     string // exact, or with "*" at its end the beginning
	Decision string
	Tenant   string
	Subject  string // exact, or with "*" at its end the beginning
	Object   string // exact, or with "*" at its end the beginning
	Code     string
	Since    time.Time // inclusive
	Until    time.Time // exclusive
}

// Match reports whether the filter selects an entry.
func (f Filter) Match(e api.AuditEntry) bool {
	return (f.Tenant == "" || f.Tenant == cmp.Or(e.Tenant, DefaultTenant)) &&
		matches(f.Kind, string(e.Kind)) && matches(f.Decision, e.Decision) &&
		matches(f.Subject, e.Subject) && matches(f.Object, e.Object) && matches(f.Code, e.Code) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || e.Time.Before(f.Until))
}

// selects is Match of a leaf; what cannot be read is selected by no filter.
func (f Filter) selects(leaf []byte) bool {
	var e api.AuditEntry
	return json.Unmarshal(leaf, &e) == nil && f.Match(e)
}

func matches(pattern, s string) bool {
	if start, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, start)
	}
	return pattern == "" || pattern == s
}

// Page is a part of the answer to a query.
type Page struct {
	Entries []json.RawMessage // canonical JSON, in order
	Next    int64             // where the next page starts
	First   int64             // that is not archived
	Size    int64             // of the log; the query is at its end if Next is not below
}

// Limits of one query.
const (
	maxScan = 10_000 // entries looked at
	slack   = 10 * time.Minute
)

// Query returns entries that the filter selects, from index from on, at most
// limit of them. It looks at a bounded number of entries, so a page may have
// few or none, and still not be the last.
func (l *Log) Query(ctx context.Context, f Filter, from int64, limit int) (Page, error) {
	if from < 0 {
		return Page{}, fmt.Errorf("%w: index %d", ErrRange, from)
	}
	first, end, err := l.bounds(ctx)
	if err != nil {
		return Page{}, err
	}
	p := Page{Next: max(from, first), First: first, Size: end}
	if !f.Since.IsZero() {
		first, err := l.since(ctx, f.Since.Add(-slack), first, end)
		if err != nil {
			return Page{}, err
		}
		p.Next = max(p.Next, first)
	}
	all := f == Filter{}
	for scanned := 0; len(p.Entries) < limit && p.Next < end && scanned < maxScan; {
		n := min(page, maxScan-scanned)
		if all {
			n = min(n, limit-len(p.Entries))
		}
		scanned += n
		next := p.Next + int64(n)
		err := l.read(ctx, p.Next, n, func(r record) error {
			if len(p.Entries) < limit && (all || f.selects(r.leaf)) {
				if p.Entries = append(p.Entries, r.leaf); len(p.Entries) == limit {
					next = r.index + 1
				}
			}
			return nil
		})
		if err != nil {
			return Page{}, err
		}
		p.Next = min(next, end)
	}
	return p, nil
}

// bounds are the first entry that is not archived and the number of entries, as
// the store has it: what is there is not authenticated.
func (l *Log) bounds(ctx context.Context) (first, end int64, err error) {
	err = l.st.View(ctx, func(tx store.Tx) (err error) {
		end = 0
		if first, _, err = l.archivedTx(tx); err != nil {
			return err
		}
		newest, err := tx.List(prefixEntry, "", 1)
		if err != nil || len(newest) == 0 {
			return err
		}
		index, err := indexOf(newest[0].Key)
		end = index + 1
		return err
	})
	return first, end, err
}

// since returns an index from low to high before which all entries are older, found by halving:
// the times of neighbours differ by no more than the clocks of the replicas
// do, for which the caller allows.
func (l *Log) since(ctx context.Context, t time.Time, low, high int64) (int64, error) {
	for low < high {
		mid := low + (high-low)/2
		var e api.AuditEntry
		err := l.read(ctx, mid, 1, func(r record) error { return json.Unmarshal(r.leaf, &e) })
		if err != nil {
			return 0, err
		}
		if e.Time.Before(t) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}
