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

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// Limits of a connection. A guest on a slow link sends a few megabytes of
// evidence; nobody needs minutes for a request head.
const (
	headTimeout  = 10 * time.Second
	readTimeout  = 60 * time.Second
	writeTimeout = 60 * time.Second
	idleTimeout  = 120 * time.Second
	maxHead      = 1 << 20 // bytes: tokens with several devices are large
	drainTimeout = 15 * time.Second
	sweepEvery   = time.Minute
)

// Listeners are the bound sockets of a broker.
type Listeners struct {
	Guest []net.Listener
	Admin []net.Listener
}

// Close closes all of them.
func (l Listeners) Close() error {
	var all []error
	for _, ln := range append(append([]net.Listener(nil), l.Guest...), l.Admin...) {
		all = append(all, ln.Close())
	}
	return errors.Join(all...)
}

// Listen binds the configured sockets, or none.
func (b *Broker) Listen(ctx context.Context) (_ Listeners, err error) {
	var l Listeners
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	var lc net.ListenConfig
	for _, a := range b.cfg.HTTPServer.Sockets {
		ln, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			return l, fmt.Errorf("listen for guests: %w", err)
		}
		l.Guest = append(l.Guest, ln)
	}
	for _, a := range b.cfg.HTTPServer.AdminSockets {
		ln, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			return l, fmt.Errorf("listen for administrators: %w", err)
		}
		l.Admin = append(l.Admin, ln)
	}
	return l, nil
}

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
	front := server.NewFront(b.tenants, tenant.Default, server.New(b.home.deps))
	guest, admins := b.httpServer(front.Guest()), b.httpServer(front.Admin())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var wg sync.WaitGroup
	run := func(srv *http.Server, lns []net.Listener) {
		for _, ln := range lns {
			wg.Go(func() {
				if err := b.serveOn(srv, ln); !errors.Is(err, http.ErrServerClosed) {
					cancel(fmt.Errorf("serve on %s: %w", ln.Addr(), err))
				}
			})
		}
	}
	run(guest, l.Guest)
	run(admins, l.Admin)
	wg.Go(func() { b.sweep(ctx) })
	for _, job := range b.background {
		wg.Go(func() { job(ctx) })
	}

	<-ctx.Done()
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer stop()
	err := errors.Join(guest.Shutdown(drain), admins.Shutdown(drain))
	if err != nil { // somebody does not finish: cut the connection
		err = errors.Join(err, guest.Close(), admins.Close())
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

func (b *Broker) httpServer(h http.Handler) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(b.Logger.Handler(), slog.LevelDebug),
	}
	if b.tls != nil {
		srv.TLSConfig = b.tls.config.Clone()
	}
	return srv
}

func (b *Broker) serveOn(srv *http.Server, ln net.Listener) error {
	if b.tls == nil {
		return srv.Serve(ln)
	}
	return srv.ServeTLS(ln, "", "")
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
		}
		if n, err := store.Sweep(ctx, b.store, b.Now()); err != nil {
			b.Logger.WarnContext(ctx, "sweep of expired records failed", slog.Any("error", err))
		} else if n > 0 {
			b.Logger.DebugContext(ctx, "expired records deleted", slog.Int("count", n))
		}
	}
}
