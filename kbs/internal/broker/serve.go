package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/systemd"
)

// Limits of a connection. A guest on a slow link sends a few megabytes of
// evidence; nobody needs minutes for a request head.
const (
	readTimeout  = 60 * time.Second
	writeTimeout = 60 * time.Second
	idleTimeout  = 120 * time.Second
	maxHead      = 1 << 20 // bytes: tokens with several devices are large
	sweepEvery   = time.Minute
)

// CertificatePath is what clients trust: the broker's certificate, or "" if it
// speaks no TLS.
func (b *Broker) CertificatePath() string {
	if b.tls == nil {
		return ""
	}
	return b.tls.certPath
}

// Serve answers until ctx ends, then lets running requests finish and returns
// nil. It owns the listeners.
func (b *Broker) Serve(ctx context.Context, l Listeners) error {
	home := server.New(b.home.deps)
	front := b.front()
	open := limit.NewConnections(b.cfg.Limits.MaxConnections)
	guests := limited(open, l.Guest)
	forGuests := b.httpServer("guests", front.Guest(), b.tls)
	// A guest asks for a few things, one after the other: what HTTP/2 adds
	// costs as much as the policies do, and a stranger can make it cost more.
	forGuests.Protocols = new(http.Protocols)
	forGuests.Protocols.SetHTTP1(true)
	sides := []side{
		{forGuests, guests},
		{b.httpServer("admins", front.Admin(), b.tls), l.Admin},
	}
	services, err := b.services(l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	sides = append(sides, services...)
	sides = append(sides, side{b.httpServer("metrics", home.Operator(), nil), l.Metrics})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var wg sync.WaitGroup
	for _, s := range sides {
		for _, ln := range s.lns {
			wg.Go(func() {
				if err := s.serve(ln); !errors.Is(err, http.ErrServerClosed) {
					cancel(fmt.Errorf("serve on %s: %w", ln.Addr(), err))
				}
			})
		}
	}
	wg.Go(func() { b.sweep(ctx) })
	for _, job := range []func(context.Context){b.Maintain, b.watch, b.live} {
		wg.Go(func() { job(ctx) })
	}
	b.probes.Start()
	b.notify(ctx, systemd.Ready)

	<-ctx.Done()
	b.probes.Drain()
	b.notify(context.WithoutCancel(ctx), systemd.Stopping)
	err = b.drain(context.WithoutCancel(ctx), sides)
	wg.Wait()
	err = errors.Join(err, b.flushRefusals(context.WithoutCancel(ctx)))
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// limited puts listeners under one limit. The caller may still be looking at its
// own.
func limited(open *limit.Connections, all []net.Listener) []net.Listener {
	out := make([]net.Listener, len(all))
	for i, ln := range all {
		out[i] = open.Listen(ln)
	}
	return out
}

// drain lets running requests finish, those of the probes last: they must see
// until the end that the broker is stopping.
func (b *Broker) drain(ctx context.Context, sides []side) error {
	ctx, stop := context.WithTimeout(ctx, b.cfg.Limits.Drain())
	defer stop()
	var all []error
	for _, s := range sides {
		if err := s.srv.Shutdown(ctx); err != nil { // somebody does not finish: cut the connection
			all = append(all, err, s.srv.Close())
		}
	}
	return errors.Join(all...)
}

// side is one of the broker's faces and its sockets.
type side struct {
	srv *http.Server
	lns []net.Listener
}

func (s side) serve(ln net.Listener) error {
	if s.srv.TLSConfig == nil {
		return s.srv.Serve(ln)
	}
	return s.srv.ServeTLS(ln, "", "")
}

// Maintain does what a broker does beside answering, until ctx ends: it moves
// records to a new master key, counts releases, stays logged in elsewhere. Serve
// calls it; so does who serves the rooms by himself.
func (b *Broker) Maintain(ctx context.Context) {
	var wg sync.WaitGroup
	for _, job := range b.background {
		wg.Go(func() { job(ctx) })
	}
	wg.Wait()
}

func (b *Broker) httpServer(name string, h http.Handler, t *tlsFiles) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: b.cfg.Limits.Head(),
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(b.Logger.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				b.metrics.Connection(name, 1)
			case http.StateClosed, http.StateHijacked:
				b.metrics.Connection(name, -1)
			case http.StateActive, http.StateIdle:
			}
		},
	}
	if t != nil {
		srv.TLSConfig = t.config.Clone()
	}
	return srv
}

// sweep deletes expired sessions of the tenants in use until ctx ends.
func (b *Broker) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, r := range b.tenants.pool.Held() {
			if err := r.deps.TokenKeys.Maintain(ctx); err != nil {
				r.deps.Logger.WarnContext(ctx, "token keys were not rotated", slog.Any("error", err))
			}
			if err := r.deps.RefValues.Flush(ctx); err != nil {
				r.deps.Logger.WarnContext(ctx, "the use of reference values was not written down", slog.Any("error", err))
			}
		}
		if err := b.flushRefusals(ctx); err != nil {
			b.Logger.WarnContext(ctx, "repeated refusals were not counted", slog.Any("error", err))
		}
		if n, err := store.Sweep(ctx, b.store, b.Now()); err != nil {
			b.Logger.WarnContext(ctx, "sweep of expired records failed", slog.Any("error", err))
		} else if n > 0 {
			b.Logger.DebugContext(ctx, "expired records deleted", slog.Int("count", n))
		}
	}
}
