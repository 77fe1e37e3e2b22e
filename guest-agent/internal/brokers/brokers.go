// Package brokers asks the key brokers of a guest, in the order that its owner
// gave them, so that one that is down does not hold a pod up.
//
// Failing over is for brokers that give no answer: out of reach, too slow, with
// a certificate that is not theirs, or saying something that the protocol does
// not have. A refusal is an answer: what the first broker denies is not asked of
// the second, or a guest would get from the most lenient one what all others
// keep from it.
//
// Each broker has a client of its own, and so a token, a key pair and
// connections of its own. A broker that failed is asked last for a while that
// doubles; when the while is over, one caller tries it and the others go on to
// the next one.
//
// A resource URI may name a broker (kbs://host:port/...). URIs come from pod
// specifications and images, which the host can write: a name picks one of the
// brokers that are configured, and never adds one.
package brokers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Client is the attested client of one broker. Errors are *fault.Fault.
type Client interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
	WorkloadToken(ctx context.Context) (secret.Bytes, error)
	TokenWithKey(ctx context.Context) (secret.Bytes, error)
	ReportRefusal(ctx context.Context, r api.GuestRefusal) (fault.Ticket, error)
	Renew(ctx context.Context) error
	Forget()
}

// Broker is one broker of a set.
type Broker struct {
	// URL that Client talks to, for the name that resource URIs give it.
	URL    string
	Client Client
	// NamedOnly keeps a broker for the URIs that name it: it stands in for no
	// other one.
	NamedOnly bool
}

// How long a broker may take while there is another one to ask, and how long one
// that failed is asked last.
const (
	patience   = 15 * time.Second
	firstPause = time.Second
	longest    = time.Minute
)

// Set is the brokers of a guest. It is safe for concurrent use.
type Set struct {
	members  []*member
	now      func() time.Time
	patience time.Duration
	log      *slog.Logger
}

// member is a broker and what is known of its health.
type member struct {
	Broker
	host string // host:port in lower case

	mu    sync.Mutex
	pause time.Duration // 0: it answers
	until time.Time     // asked last before then
	tried bool          // one caller was sent to see
}

// New returns a set of at least one broker that needs no name to be asked. now
// is the clock of pauses; nil is time.Now.
func New(brokers []Broker, now func() time.Time, log *slog.Logger) (*Set, error) {
	s := &Set{now: now, patience: patience, log: log}
	if now == nil {
		s.now = time.Now
	}
	open := false
	for _, b := range brokers {
		u, err := url.Parse(b.URL)
		if err != nil || u.Host == "" {
			return nil, errors.New("brokers: a broker's URL has no host")
		}
		s.members = append(s.members, &member{Broker: b, host: hostPort(u.Host, u.Scheme)})
		open = open || !b.NamedOnly
	}
	if !open {
		return nil, errors.New("brokers: every broker is one that must be named")
	}
	return s, nil
}

// hostPort gives a host the port of its scheme if it has none.
func hostPort(host, scheme string) string {
	host = strings.ToLower(host)
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := "443"
	if scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// Resource fetches what a URI names from the broker that it names, if that one
// is of this set, or else from the first that answers: as in the field, where
// any other host in a URI means the configured broker (guest-protocol 9).
func (s *Set) Resource(ctx context.Context, uri string) (secret.Bytes, error) {
	u, err := client.ParseResourceURI(uri)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.InvalidRequest, err)
	}
	order := s.named(u.Host)
	if len(order) == 0 {
		order = s.order()
	}
	return ask(ctx, s, order, func(ctx context.Context, c Client) (secret.Bytes, error) { return c.Resource(ctx, uri) })
}

// WorkloadToken returns the token of the first broker that answers, see
// [client.Client.WorkloadToken].
func (s *Set) WorkloadToken(ctx context.Context) (secret.Bytes, error) {
	return ask(ctx, s, s.order(), func(ctx context.Context, c Client) (secret.Bytes, error) { return c.WorkloadToken(ctx) })
}

// TokenWithKey attests to the first broker that answers, see
// [client.Client.TokenWithKey].
func (s *Set) TokenWithKey(ctx context.Context) (secret.Bytes, error) {
	return ask(ctx, s, s.order(), func(ctx context.Context, c Client) (secret.Bytes, error) { return c.TokenWithKey(ctx) })
}

// ReportRefusal tells the first broker that answers.
func (s *Set) ReportRefusal(ctx context.Context, r api.GuestRefusal) (fault.Ticket, error) {
	return ask(ctx, s, s.order(), func(ctx context.Context, c Client) (fault.Ticket, error) { return c.ReportRefusal(ctx, r) })
}

// Renew attests anew to every broker that knows this guest. What one decides
// against the guest is returned before the silence of another.
func (s *Set) Renew(ctx context.Context) error {
	var first error
	for i, m := range s.members {
		_, err := attempt(ctx, s.patience, i+1 < len(s.members), func(ctx context.Context) (struct{}, error) { return struct{}{}, m.Client.Renew(ctx) })
		switch {
		case err != nil && answered(err):
			return err
		case first == nil:
			first = err
		}
	}
	return first
}

// Forget drops all tokens and their keys.
func (s *Set) Forget() {
	for _, m := range s.members {
		m.Client.Forget()
	}
}

// named returns the brokers of a host; several may share one under different
// paths.
func (s *Set) named(host string) (found []*member) {
	if host == "" {
		return nil
	}
	for _, m := range s.members {
		scheme, _, _ := strings.Cut(m.URL, "://")
		if m.host == hostPort(host, scheme) {
			found = append(found, m)
		}
	}
	return found
}

// order returns the brokers to ask: those that answer before those that did
// not, and otherwise as they were given.
func (s *Set) order() []*member {
	var good, failing []*member
	for _, m := range s.members {
		switch {
		case m.NamedOnly:
		case m.due(s.now()):
			good = append(good, m)
		default:
			failing = append(failing, m)
		}
	}
	return append(good, failing...)
}

// due reports whether a broker is to be asked in its turn. Of those that ask
// when a pause is over, one is sent.
func (m *member) due(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pause == 0 {
		return true
	}
	if now.Before(m.until) {
		return false
	}
	m.until, m.tried = now.Add(m.pause), true
	return true
}

// ask asks one broker after the other until one answers.
func ask[T any](ctx context.Context, s *Set, order []*member, call func(context.Context, Client) (T, error)) (none T, err error) {
	var causes []error
	for i, m := range order {
		got, err := attempt(ctx, s.patience, i+1 < len(order), func(ctx context.Context) (T, error) { return call(ctx, m.Client) })
		if err == nil || answered(err) {
			s.answers(m)
			return got, err
		}
		if ctx.Err() != nil {
			return none, err // the caller gave up, which says nothing of the broker
		}
		s.fails(ctx, m, err)
		causes = append(causes, err)
	}
	if len(causes) == 1 {
		return none, causes[0]
	}
	text := make([]string, 0, len(causes)) // the faults' own texts are their codes
	for i, c := range causes {
		cause := errors.Unwrap(c)
		text = append(text, fmt.Sprintf("broker %s: %s: %v", order[i].host, fault.CodeOf(c), cause))
	}
	return none, fault.Newf(fault.Unavailable, "no broker answers: %s", strings.Join(text, "; "))
}

// attempt is one call, bounded while there is another broker to ask.
func attempt[T any](ctx context.Context, patience time.Duration, others bool, call func(context.Context) (T, error)) (T, error) {
	if !others {
		return call(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return call(ctx)
}

// answered reports whether a failure is a broker's decision.
func answered(err error) bool {
	code := fault.CodeOf(err)
	return code != fault.Unavailable && code != fault.Internal || errors.Is(err, client.ErrUnsupported)
}

func (s *Set) answers(m *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pause > 0 {
		s.log.Info("a broker answers again", slog.String("broker", m.host))
	}
	m.pause, m.tried = 0, false
}

func (s *Set) fails(ctx context.Context, m *member, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pause > 0 && !m.tried {
		return // one more caller of an outage that is known
	}
	m.pause, m.tried = min(longest, max(firstPause, 2*m.pause)), false
	m.until = s.now().Add(m.pause)
	s.log.WarnContext(ctx, "a broker does not answer",
		slog.String("broker", m.host), slog.String("code", string(fault.CodeOf(err))), slog.Duration("pause", m.pause))
}
