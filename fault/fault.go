// Package fault is the one type for refusals: what anyone may see of them, and
// what only the operator may see.
//
// A guest runs on a host that its owner does not trust, and the host reads
// every error that a container runtime prints. So a [Fault] shows a stable
// [Code] and an opaque [Ticket], and keeps its cause to itself: neither Error,
// nor fmt, nor slog, nor JSON gives it away. The broker keeps the cause under
// the ticket, and `kbsctl explain ticket/ID` opens it for an administrator.
package fault

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
)

// Ticket names one refusal. It says nothing by itself: 40 random bits in
// Crockford's base32, for example "7QK2-M9TD".
type Ticket string

const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

var ticketForm = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}$`)

// NewTicket draws a ticket at random.
func NewTicket() Ticket {
	var r [8]byte
	rand.Read(r[:]) // crypto/rand.Read never fails
	b := make([]byte, 0, 9)
	for i, v := range r {
		if i == 4 {
			b = append(b, '-')
		}
		b = append(b, alphabet[v&31])
	}
	return Ticket(b)
}

// ParseTicket accepts only the exact form that [NewTicket] gives.
func ParseTicket(s string) (Ticket, error) {
	if !ticketForm.MatchString(s) {
		return "", errors.New("a ticket looks like 7QK2-M9TD")
	}
	return Ticket(s), nil
}

// A Fault is a refusal that crosses a trust boundary.
type Fault struct {
	Code   Code
	Ticket Ticket // may be empty where no broker has recorded it yet
	cause  error
}

// New returns a fault with a private cause. A cause that already is, or wraps,
// a Fault keeps its own code and ticket: the first refusal is the true one.
func New(code Code, cause error) *Fault {
	if f, ok := errors.AsType[*Fault](cause); ok {
		return f
	}
	return &Fault{Code: code, cause: cause}
}

// Newf is New with a formatted cause. It accepts %w.
func Newf(code Code, format string, args ...any) *Fault {
	return New(code, fmt.Errorf(format, args...))
}

// With returns a copy of f under the given ticket.
func (f *Fault) With(t Ticket) *Fault {
	g := *f
	g.Ticket = t
	return &g
}

// Error returns the public text. It never contains the cause.
func (f *Fault) Error() string { return f.Public() }

// Public returns what anyone may see, for example
// "policy_denied (ticket 7QK2-M9TD)".
func (f *Fault) Public() string {
	if f.Ticket == "" {
		return string(f.Code)
	}
	return fmt.Sprintf("%s (ticket %s)", f.Code, f.Ticket)
}

// Cause returns the private reason. It must reach only the operator: the
// broker's ticket store, or a journal that the host cannot read.
func (f *Fault) Cause() error { return f.cause }

// Unwrap lets errors.Is and errors.As look into the cause.
func (f *Fault) Unwrap() error { return f.cause }

// Format writes the public text for every verb, so that %+v and %#v cannot
// print the cause.
func (f *Fault) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(f.Public())) }

// LogValue gives slog the public part only.
func (f *Fault) LogValue() slog.Value {
	return slog.GroupValue(slog.String("code", string(f.Code)), slog.String("ticket", string(f.Ticket)))
}

// MarshalJSON writes the public part only.
func (f *Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Code   Code   `json:"code"`
		Ticket Ticket `json:"ticket,omitempty"`
	}{f.Code, f.Ticket})
}

// CodeOf returns the code of the fault in err's chain, or [Internal].
func CodeOf(err error) Code {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Code
	}
	return Internal
}
