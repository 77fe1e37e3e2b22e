package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// DefaultAddress is where workloads look (guest-protocol 16).
const DefaultAddress = "127.0.0.1:8006"

// shutdownTimeout is how long requests under way may take once ctx is done.
const shutdownTimeout = 5 * time.Second

// Serve answers on l until ctx is done, then lets requests under way end. It
// refuses a listener that is not on a loopback address and closes l in any case.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	if !loopback(l.Addr().String()) {
		return errors.Join(fmt.Errorf("rest: %s is not a loopback address", l.Addr()), l.Close())
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      requestTimeout + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(bounded)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() { // ctx is not done: the listener broke
		return fmt.Errorf("rest: %w", err)
	}
	return <-stopped
}
