package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
)

// guest returns the n-th guest: a client with connections of its own, from an
// address of its own, as guests have.
func (s *stage) guest(n int) (*client.Client, error) {
	dialer := &net.Dialer{
		Timeout:   30 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>16&0x7f), byte(n>>8), byte(n))},
	}
	return client.New(client.Config{
		URL:      s.world.Broker.URL,
		RootCAs:  s.roots,
		Attester: s.guests[n%len(s.guests)],
		Logger:   slog.New(slog.DiscardHandler),
		Dial:     dialer.DialContext,
	})
}

// attest is one guest's whole handshake over a new connection.
func (s *stage) attest(ctx context.Context, n int) error {
	c, err := s.guest(n)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Token(ctx); err != nil {
		return fmt.Errorf("guest %d: %w", n, err)
	}
	return nil
}

// attested returns clients that hold a token and an open connection.
func (s *stage) attested(ctx context.Context, n int) ([]*client.Client, error) {
	out := make([]*client.Client, n)
	for i := range out {
		c, err := s.guest(i)
		if err != nil {
			return nil, err
		}
		if _, err := c.Resource(ctx, "kbs:///"+releasedResource); err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}
