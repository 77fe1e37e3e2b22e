package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// retry is the shortest time between two renewals that nobody answered
// (RFC 2131, section 4.4.5).
const retry = time.Minute

// obtainTime bounds one search for a new lease after one was lost.
const obtainTime = 2 * time.Minute

// Keep renews a lease until ctx is done. apply is told of each lease that says
// something else than the one before, and lost of one that has ended or is now of
// another network, which must not be used any longer; where nothing came in its
// place, another lease is looked for.
func (c *Client) Keep(ctx context.Context, l Lease, apply func(Lease) error, lost func(Lease) error) {
	for {
		next, err := c.follow(ctx, l)
		if ctx.Err() != nil {
			return
		}
		ended := err != nil
		if ended {
			c.Logger.Warn("the address of this machine is lent no longer", slog.String("address", l.Address.String()), slog.Any("err", err))
			c.report(lost(l))
			if next, err = c.search(ctx); err != nil {
				return
			}
		}
		if !ended && next.Address != l.Address {
			c.report(lost(l)) // the same address of another network would be one more
		}
		if ended || !next.same(l) {
			c.Logger.Info("the machine's address", slog.String("address", next.Address.String()))
			c.report(apply(next))
		}
		l = next
	}
}

func (c *Client) report(err error) {
	if err != nil {
		c.Logger.Error("the network could not be changed", slog.Any("err", err))
	}
}

// same says whether a renewed lease changes nothing.
func (l Lease) same(o Lease) bool { return l.Address == o.Address && l.Gateway == o.Gateway }

// follow returns the lease that comes after l, or an error once l has ended.
func (c *Client) follow(ctx context.Context, l Lease) (Lease, error) {
	if l.Expire == 0 {
		<-ctx.Done()
		return l, ctx.Err()
	}
	end := l.Begin.Add(l.Expire)
	for at := l.Begin.Add(l.Renew); ; {
		if err := sleepUntil(ctx, at); err != nil {
			return l, err
		}
		bounded, cancel := context.WithDeadline(ctx, end)
		next, err := c.renew(bounded, l)
		cancel()
		now := time.Now()
		switch {
		case err == nil:
			return next, nil
		case errors.Is(err, errRefused), !now.Before(end):
			return l, err
		}
		// Half of what remains, but not more often than once a minute.
		at = now.Add(max(end.Sub(now)/2, retry))
		if at.After(end) {
			at = end
		}
	}
}

// search asks until somebody lends, or ctx is done.
func (c *Client) search(ctx context.Context) (Lease, error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, obtainTime)
		l, err := c.Obtain(bounded)
		cancel()
		if err == nil {
			return l, nil
		}
		if err := sleepUntil(ctx, time.Now().Add(pause)); err != nil {
			return l, err
		}
	}
}

func sleepUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
