package broker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/asapi"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// answerTime is what a service has beyond the time of a call to write its
// answer.
const answerTime = 15 * time.Second

// services are the listeners through which the verifier of the tenant
// "default" serves other brokers. Those that are off have no sockets.
func (b *Broker) services(l Listeners) ([]side, error) {
	as, rest, rvps := b.cfg.AttestationService.GRPC, b.cfg.AttestationService.REST, b.cfg.RVPS.GRPC
	open := limit.NewConnections(b.cfg.Limits.MaxConnections)
	var out []side
	for _, s := range []struct {
		name    string
		cfg     config.ServiceListener
		handler http.Handler
		side    side
	}{
		{"attestation_service.grpc", as, b.service("attestation_service.grpc", as).GRPC(b.Logger), side{lns: limited(open, l.AS)}},
		{"attestation_service.rest", rest, b.service("attestation_service.rest", rest).REST(b.Logger), side{lns: limited(open, l.REST)}},
		{"rvps.grpc", rvps, b.service("rvps.grpc", rvps).RVPS(b.Logger), side{lns: limited(open, l.RVPS)}},
	} {
		srv, err := b.serviceServer(s.name, s.cfg, s.handler)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		s.side.srv = srv
		out = append(out, s.side)
	}
	return out, nil
}

func (b *Broker) service(name string, c config.ServiceListener) *asapi.Service {
	deps := b.home.deps
	deps.Admins = b.adminsOf(name, c)
	rates := rates(b.cfg.Limits)
	rates.PerSecond[limit.Attest] = float64(c.CallsPerSecond)
	return asapi.New(asapi.Config{
		Listener: name, Watcher: b.watcher, BodyRate: b.cfg.Limits.BodyBytesPerSecond,
		Guard: limit.NewGuard(rates, b.Now, b.metrics.Shed), Shed: b.metrics.Shed,
		Evaluator: b.home.deps.Handshake, Admin: server.New(deps).Admin(), KeySet: b.home.deps.TokenKeys.KeySet,
		Limits: asapi.Limits{Message: c.MaxMessage(), Time: c.Timeout(), Concurrency: c.Concurrency, Queue: b.cfg.Limits.AttestQueue},
	})
}

// serviceServer takes HTTP/1.1 and HTTP/2 on one port, also in the clear: that
// is how the field's brokers call.
func (b *Broker) serviceServer(name string, c config.ServiceListener, h http.Handler) (*http.Server, error) {
	t := b.tls
	if c.InsecureHTTP {
		t = nil
	} else if t == nil && len(c.Sockets) > 0 {
		return nil, errors.New("http_server has no TLS, so insecure_http must be said here too")
	}
	srv := b.httpServer(name, h, t)
	srv.WriteTimeout = c.Timeout() + answerTime
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(t == nil)
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: c.Concurrency}
	if c.ClientCA == "" || t == nil {
		return srv, nil
	}
	raw, err := readFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, errors.New("client_ca: it has no certificate")
	}
	srv.TLSConfig.ClientCAs, srv.TLSConfig.ClientAuth = pool, tls.RequireAndVerifyClientCert
	return srv, nil
}
