package sink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
)

// Constants of RFC 5424.
const (
	facilityAudit = 13 // "log audit"
	maxDatagram   = 8 << 10
	maxSequence   = 1<<31 - 1
)

// linger is how long a connection has to survive a batch. Syslog has no
// confirmation; this finds a receiver that went away before it read.
const linger = 50 * time.Millisecond

// Syslog sends one message (RFC 5424) for each event: datagrams over a unix
// socket or UDP (RFC 5426), octet-counted frames over TCP (RFC 6587) or TLS
// (RFC 5425). No receiver confirms anything. What goes over a stream counts as
// delivered when the connection stands a moment later, and what goes in
// datagrams when the system took it.
type Syslog struct {
	Address  string // unix:///PATH, udp://, tcp:// or tls://HOST:PORT
	Hostname string
	TLS      *tls.Config
	Source   ocsf.Source
	Format   Format

	conn   net.Conn
	framed bool
	ended  chan struct{} // closed when a stream has ended
	// unsure is what a stream took last. If that stream is found cut, nobody
	// knows whether it was read, and it is sent again.
	unsure []byte
}

var errCut = errors.New("sink: the receiver ended the connection")

// Deliver implements [Sink].
func (s *Syslog) Deliver(ctx context.Context, batch []Event) (err error) {
	if err := s.dial(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.hangUp()
		}
	}()
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.conn.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	if !s.framed {
		return s.datagrams(batch)
	}
	frames := s.unsure
	for _, e := range batch {
		msg, err := s.message(e)
		if err != nil {
			return err
		}
		frames = append(strconv.AppendInt(frames, int64(len(msg)), 10), ' ')
		frames = append(frames, msg...)
	}
	if _, err := s.conn.Write(frames); err != nil {
		return err
	}
	select {
	case <-s.ended:
		return errCut
	case <-time.After(linger):
		s.unsure = frames[len(s.unsure):]
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Syslog) datagrams(batch []Event) error {
	for _, e := range batch {
		msg, err := s.message(e)
		if err == nil && len(msg) > maxDatagram {
			msg, err = s.message(stub(e))
		}
		if err != nil {
			return err
		}
		if _, err := s.conn.Write(msg); err != nil {
			return err
		}
	}
	return nil
}

// stub is what fits into a datagram of an event that does not: enough to find
// the entry in the log.
func stub(e Event) Event {
	short := api.AuditEntry{
		Index: e.Entry.Index, Time: e.Entry.Time, Kind: e.Entry.Kind, Decision: e.Entry.Decision, Code: e.Entry.Code, Ticket: e.Entry.Ticket,
		Details: map[string]string{"cut": "too long for a datagram"},
	}
	leaf, _ := json.Marshal(short) // has no member that could fail
	return Event{Entry: short, Leaf: leaf}
}

// message returns one syslog message. The sequence number is the index and
// one, as numbers of RFC 5424 section 7.3.1 start at 1 and wrap.
func (s *Syslog) message(e Event) ([]byte, error) {
	text, err := s.Format(e)
	if err != nil {
		return nil, err
	}
	severity := map[string]int{"allow": 6, "change": 5, "deny": 4, "error": 3}[e.Entry.Decision]
	msg := fmt.Appendf(nil, `<%d>1 %s %s vouchsafe-kbs - %s [meta sequenceId="%d"] `,
		facilityAudit*8+severity, e.Entry.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		field(s.Hostname, 255), field(string(e.Entry.Kind), 32), e.Entry.Index%maxSequence+1)
	return append(msg, text...), nil
}

// field makes a header field of printable ASCII (RFC 5424 section 6).
func field(s string, most int) string {
	b := []byte(s)
	if len(b) > most {
		b = b[:most]
	}
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '_'
		}
	}
	if len(b) == 0 {
		return "-"
	}
	return string(b)
}

func (s *Syslog) dial(ctx context.Context) error {
	if s.conn != nil {
		select {
		case <-s.ended:
			s.hangUp()
		default:
			s.unsure = nil // the stream stands, so what it took was read, or will be
			return nil
		}
	}
	u, err := url.Parse(s.Address)
	if err != nil {
		return err
	}
	var d net.Dialer
	s.framed = false
	switch u.Scheme {
	case "unix":
		s.conn, err = d.DialContext(ctx, "unixgram", u.Path)
	case "udp":
		s.conn, err = d.DialContext(ctx, "udp", u.Host)
	case "tcp":
		s.framed = true
		s.conn, err = d.DialContext(ctx, "tcp", u.Host)
	case "tls":
		s.framed = true
		s.conn, err = (&tls.Dialer{NetDialer: &d, Config: s.TLS}).DialContext(ctx, "tcp", u.Host)
	default:
		err = fmt.Errorf("sink: no transport %q", u.Scheme)
	}
	if err != nil {
		s.conn = nil
		return err
	}
	s.ended = make(chan struct{})
	if s.framed {
		go s.listen(s.conn, s.ended)
	}
	return nil
}

// listen notices the end of a stream: syslog receivers never write.
func (s *Syslog) listen(conn net.Conn, ended chan<- struct{}) {
	defer close(ended)
	_, _ = io.Copy(io.Discard, conn) // why it ended does not matter
}

// hangUp closes the connection and waits for its listener.
func (s *Syslog) hangUp() {
	_ = s.conn.Close() // what it took and may not have sent is sent again
	if s.framed {
		<-s.ended
	}
	s.conn = nil
}

// Close implements [Sink].
func (s *Syslog) Close() error {
	if s.conn != nil {
		s.hangUp()
	}
	return nil
}
