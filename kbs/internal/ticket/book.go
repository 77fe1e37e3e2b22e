package ticket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Records in the store: the explanation under its ticket, and the ticket under
// a number that falls as the audit log grows, so that the newest lists first.
const (
	prefixID     = "ticket/id/"
	prefixNewest = "ticket/newest/"
)

// MaxExplanation bounds the JSON of one explanation, in bytes.
const MaxExplanation = 1 << 20

// draws bounds the search for a free ticket. With 2^40 tickets, even a million
// kept ones make eight taken ones in a row impossible in practice.
const draws = 8

var (
	// ErrTooLarge says that an explanation is longer than [MaxExplanation].
	ErrTooLarge = errors.New("ticket: explanation is too large")
	// ErrExhausted says that no free ticket was found.
	ErrExhausted = errors.New("ticket: no free ticket was found")
)

func newest(index int64) string { return fmt.Sprintf("%s%020d", prefixNewest, math.MaxInt64-index) }

// Open returns the book in st. Entries go to rec, whose log must be in the
// same store, because both become durable in one transaction. A ticket can be
// opened for as long as keep says; the log's entry stays.
func Open(st store.Store, rec audit.Recorder, keep time.Duration, now func() time.Time) Book {
	return &book{st: st, rec: rec, keep: keep, now: now, draw: fault.NewTicket}
}

type book struct {
	st   store.Store
	rec  audit.Recorder
	keep time.Duration
	now  func() time.Time
	draw func() fault.Ticket
}

func (b *book) Record(ctx context.Context, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error) {
	var t fault.Ticket
	err := b.st.Update(ctx, func(tx store.Tx) (err error) {
		t, err = b.RecordTx(tx, e, entry)
		return err
	})
	if err != nil {
		return "", err
	}
	return t, nil
}

// RecordTx implements [Book].
func (b *book) RecordTx(tx store.Tx, e api.Explanation, entry api.AuditEntry) (fault.Ticket, error) {
	t, err := b.free(tx)
	if err != nil {
		return "", err
	}
	e.Ticket = string(t)
	if e.Time.IsZero() {
		e.Time = b.now()
	}
	e.Time = e.Time.UTC()
	e.Group = GroupOf(e)
	entry.Code, entry.Ticket, entry.Subject, entry.Object = e.Code, e.Ticket, e.Subject, e.Object
	written, err := b.rec.AppendTx(tx, entry)
	if err != nil {
		return "", err
	}
	e.Audit = written.Index
	value, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("ticket: %w", err)
	}
	if len(value) > MaxExplanation {
		return "", fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(value), MaxExplanation)
	}
	until := e.Time.Add(b.keep)
	if _, err := tx.PutUntil(prefixID+e.Ticket, value, store.Absent, until); err != nil {
		return "", fmt.Errorf("ticket: %w", err)
	}
	if _, err := tx.PutUntil(newest(e.Audit), []byte(e.Ticket), store.Absent, until); err != nil {
		return "", fmt.Errorf("ticket: index: %w", err)
	}
	return t, b.count(tx, e)
}

// free draws a ticket that is not in use. The transaction keeps it free until
// the explanation is put there.
func (b *book) free(tx store.Tx) (fault.Ticket, error) {
	for range draws {
		t := b.draw()
		switch _, err := tx.Get(prefixID + string(t)); {
		case errors.Is(err, store.ErrNotFound):
			return t, nil
		case err != nil:
			return "", err
		}
	}
	return "", ErrExhausted
}

func (b *book) Explain(ctx context.Context, t fault.Ticket) (api.Explanation, error) {
	if _, err := fault.ParseTicket(string(t)); err != nil {
		return api.Explanation{}, fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	var e api.Explanation
	err := b.st.View(ctx, func(tx store.Tx) (err error) {
		e, err = read(tx, string(t))
		return err
	})
	if err == nil && !b.now().Before(e.Time.Add(b.keep)) {
		return api.Explanation{}, store.ErrNotFound // and soon swept
	}
	return e, err
}

func read(tx store.Tx, t string) (api.Explanation, error) {
	r, err := tx.Get(prefixID + t)
	if err != nil {
		return api.Explanation{}, err
	}
	var e api.Explanation
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return api.Explanation{}, fmt.Errorf("ticket: the record of %s is damaged: %w", t, err)
	}
	return e, nil
}

func (b *book) List(ctx context.Context, limit int) ([]api.Explanation, error) {
	var out []api.Explanation
	err := b.st.View(ctx, func(tx store.Tx) error {
		out = nil
		index, err := tx.List(prefixNewest, "", limit)
		if err != nil {
			return err
		}
		for _, r := range index {
			e, err := read(tx, string(r.Value))
			if errors.Is(err, store.ErrNotFound) {
				continue // both are being swept
			}
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, err
}
