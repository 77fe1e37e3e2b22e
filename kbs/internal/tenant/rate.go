package tenant

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Rate is a quota per minute, on this replica alone: it costs no write. A
// refusal has a ticket, and all refusals of one minute share it, because
// whoever exceeds a quota must not be able to fill the book of tickets.
type Rate struct {
	now func() time.Time
	per *rate.Limiter // nil is no limit

	mu     sync.Mutex
	ticket fault.Ticket
	until  time.Time
}

// NewRate returns a quota; a limit of 0 is none.
func NewRate(perMinute int64, now func() time.Time) *Rate {
	r := &Rate{now: now}
	if perMinute > 0 {
		burst := max(int(min(perMinute, 1<<30)/6), 1) // ten seconds' worth at once
		r.per = rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst)
	}
	return r
}

// Allow counts one, and reports whether it is within the quota.
func (r *Rate) Allow() bool {
	return r.per == nil || r.per.AllowN(r.now(), 1)
}

// Ticket returns the ticket of this minute's refusals; record makes it.
func (r *Rate) Ticket(record func() (fault.Ticket, error)) (fault.Ticket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.ticket != "" && now.Before(r.until) {
		return r.ticket, nil
	}
	t, err := record()
	if err != nil {
		return "", err
	}
	r.ticket, r.until = t, now.Add(time.Minute)
	return t, nil
}
