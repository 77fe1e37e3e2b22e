package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Listeners are the bound sockets of a broker.
type Listeners struct {
	Guest   []net.Listener
	Admin   []net.Listener
	Metrics []net.Listener
	AS      []net.Listener // Attestation Service over gRPC
	REST    []net.Listener // the same over HTTP
	RVPS    []net.Listener // reference values over gRPC
}

func (l Listeners) all() []net.Listener {
	return slices.Concat(l.Guest, l.Admin, l.Metrics, l.AS, l.REST, l.RVPS)
}

// Close closes all of them.
func (l Listeners) Close() error {
	var all []error
	for _, ln := range l.all() {
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
	for _, side := range []struct {
		name  string
		whom  string
		key   string // of the configuration
		addrs []string
		to    *[]net.Listener
	}{
		{"guests", "guests", "http_server.sockets", b.cfg.HTTPServer.Sockets, &l.Guest},
		{"admins", "administrators", "http_server.admin_sockets", b.cfg.HTTPServer.AdminSockets, &l.Admin},
		{"metrics", "metrics", "http_server.metrics_sockets", b.cfg.HTTPServer.MetricsSockets, &l.Metrics},
		{"as-grpc", "the attestation service", "attestation_service.grpc.sockets", b.cfg.AttestationService.GRPC.Sockets, &l.AS},
		{"as-rest", "the attestation service over HTTP", "attestation_service.rest.sockets", b.cfg.AttestationService.REST.Sockets, &l.REST},
		{"rvps", "reference values", "rvps.grpc.sockets", b.cfg.RVPS.GRPC.Sockets, &l.RVPS},
	} {
		if passed := b.Inherited[side.name]; len(passed) > 0 {
			*side.to = passed
			continue
		}
		for _, a := range side.addrs {
			var lc net.ListenConfig
			ln, err := lc.Listen(ctx, "tcp", a)
			if err != nil {
				return l, fmt.Errorf("listen for %s (%s): %w", side.whom, side.key, err)
			}
			*side.to = append(*side.to, ln)
		}
	}
	return l, nil
}
