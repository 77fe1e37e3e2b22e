// Package dhcp asks for an IPv4 address (RFC 2131) where nobody else is in the
// guest to do it: the agent as init, with ip=dhcp on the measured command line.
//
// Who answers is the host, or somebody whom it lets: nothing is believed but what
// a machine needs to send packets, and all of that is in the host's hands anyway.
// An answer that would have the guest talk to itself or to everybody is left
// alone. There is no library that does as little (ADR 47).
//
// Every request is sent to everybody on the link, renewals too: servers answer
// these as they answer a client that is rebinding, and one packet socket does for
// the whole of the protocol. Addresses are not probed before they are used.
package dhcp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"
)

// Transport carries messages between this machine and everybody on its link.
type Transport interface {
	// Send sends to everybody, from an address that this machine has, or 0.0.0.0.
	Send(message []byte, from netip.Addr) error
	// Receive returns what arrived for a client, from anybody, or
	// os.ErrDeadlineExceeded when the time is up.
	Receive(until time.Time) ([]byte, error)
	// Close also ends a Receive. It may be called again.
	Close() error
}

// Client asks for one link.
type Client struct {
	MAC [6]byte
	// Dial opens the link for one exchange.
	Dial   func() (Transport, error)
	Logger *slog.Logger
}

const (
	firstWait = time.Second      // before a request is repeated; doubles
	lastWait  = 16 * time.Second // until then
	tries     = 4                // of one request, before all begins anew
	pause     = 10 * time.Second // after a lease was lost and none was to be had
)

var (
	errSilence = errors.New("no server answered")
	errRefused = errors.New("the server takes the lease back")
)

// Obtain asks until a server lends an address, or ctx is done.
func (c *Client) Obtain(ctx context.Context) (Lease, error) {
	t, err := c.Dial()
	if err != nil {
		return Lease{}, err
	}
	defer func() { _ = t.Close() }()
	defer context.AfterFunc(ctx, func() { _ = t.Close() })()
	begin := time.Now()
	for {
		l, err := c.once(ctx, t, begin)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return Lease{}, errors.Join(errSilence, ctx.Err())
		case errors.Is(err, errRefused):
			if err := sleepUntil(ctx, time.Now().Add(firstWait)); err != nil {
				return Lease{}, errors.Join(errRefused, err)
			}
		case !errors.Is(err, errSilence):
			return Lease{}, err
		}
	}
}

// once is one round from the question who lends to the lease.
func (c *Client) once(ctx context.Context, t Transport, begin time.Time) (Lease, error) {
	q := c.question(discover, begin)
	offered, err := c.exchange(ctx, t, q, offer)
	if err != nil {
		return Lease{}, err
	}
	yours, server := offered.Address.Addr().As4(), offered.Server.As4()
	q = c.question(request, begin)
	q.options[optRequested], q.options[optServer] = yours[:], server[:]
	l, err := c.exchange(ctx, t, q, ack)
	if err == nil && l.Server != offered.Server {
		return l, errRefused // by whom it was not asked
	}
	return l, err
}

// renew asks for the lease that this machine has, of whoever can give it.
func (c *Client) renew(ctx context.Context, l Lease) (Lease, error) {
	t, err := c.Dial()
	if err != nil {
		return Lease{}, err
	}
	defer func() { _ = t.Close() }()
	defer context.AfterFunc(ctx, func() { _ = t.Close() })()
	q := c.question(request, time.Now())
	q.client, q.broadcast = l.Address.Addr(), false
	return c.exchange(ctx, t, q, ack)
}

func (c *Client) question(kind byte, begin time.Time) message {
	var id [4]byte
	rand.Read(id[:]) // crypto/rand.Read never fails
	m := message{
		id: binary.BigEndian.Uint32(id[:]), secs: uint16(min(time.Since(begin)/time.Second, 1<<16-1)), //nolint:gosec // bounded
		// Answers to an address that is not set up yet would be lost.
		broadcast: true, client: netip.IPv4Unspecified(), yours: netip.IPv4Unspecified(), mac: c.MAC,
		options: map[byte][]byte{
			optKind: {kind}, optParameters: {optMask, optRouter, optDNS, optLease, optServer, optRenew, optRebind}, optMaxSize: {maxSize >> 8, maxSize & 255},
		},
	}
	return m
}

// exchange sends a question until an answer of the wanted kind comes that can be
// used. What cannot is passed over: somebody else may give a better one.
func (c *Client) exchange(ctx context.Context, t Transport, q message, want byte) (Lease, error) {
	wait := firstWait
	for range tries {
		if err := ctx.Err(); err != nil {
			return Lease{}, err
		}
		asked := time.Now()
		if err := t.Send(q.marshal(), q.client); err != nil {
			return Lease{}, fmt.Errorf("send: %w", err)
		}
		l, err := c.await(t, q, want, asked, asked.Add(wait))
		if !errors.Is(err, errSilence) {
			return l, err
		}
		wait = min(2*wait, lastWait)
	}
	return Lease{}, errSilence
}

// await reads answers until one can be used or the time is up. A host that sends
// nonsense has one line of it in the log.
func (c *Client) await(t Transport, q message, want byte, asked, until time.Time) (Lease, error) {
	for said := false; ; {
		raw, err := t.Receive(until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Lease{}, errSilence
		}
		if err != nil {
			return Lease{}, err
		}
		m, err := parse(raw)
		if err != nil || !m.fromServer || m.id != q.id || m.mac != q.mac {
			continue
		}
		if want == ack && m.kind() == nak {
			return Lease{}, errRefused
		}
		if m.kind() != want {
			continue
		}
		l, err := m.lease(asked)
		if err == nil && !q.client.IsUnspecified() && l.Address.Addr() != q.client {
			err = fmt.Errorf("%s in place of %s", l.Address.Addr(), q.client)
		}
		if err == nil {
			return l, nil
		}
		if !said {
			said = true
			c.Logger.Warn("an answer of a DHCP server is left alone", slog.Any("err", err))
		}
	}
}
