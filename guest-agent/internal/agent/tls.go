package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// listenTLS is how the agent and its runtime know each other over TCP: both
// sides show certificates, and nothing older than TLS 1.3 is spoken. What the
// command line names in files is for guests whose image has them; init-data
// brings the same, and wins nothing: both at once contradict each other.
//
// Files are read again when they have changed, so that a certificate can be
// renewed; what init-data brings is what the guest was launched with.
func listenTLS(o Options, s settings.ListenTLS, log *slog.Logger) (*tls.Config, error) {
	files := o.TLSCert != "" || o.TLSKey != "" || o.TLSClientCA != ""
	if files && s.Set() {
		return nil, errors.New("TLS for the runtime is configured by files and by init-data")
	}
	if files {
		if o.TLSCert == "" || o.TLSKey == "" || o.TLSClientCA == "" {
			return nil, errors.New("listening on TCP needs a certificate, its key and the runtime's CA (--tls-cert, --tls-key, --tls-client-ca, or [vouchsafe.listen_tls] of init-data): both sides are verified")
		}
		return listenRenewed(o, log)
	}
	if !s.Set() {
		return nil, errors.New("listening on TCP needs a certificate, its key and the runtime's CA (--tls-cert, --tls-key, --tls-client-ca, or [vouchsafe.listen_tls] of init-data): both sides are verified")
	}
	return verified(s)
}

// verified is the configuration in which both sides show certificates.
func verified(s settings.ListenTLS) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(s.Certificate, s.Key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("the agent's certificate: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(s.ClientCA) {
		return nil, errors.New("the runtime's CA: no certificate found in the PEM text")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13,
		// Who comes again shows its certificate again: the CA may be another by then.
		SessionTicketsDisabled: true,
	}, nil
}

func readListenTLS(o Options) (s settings.ListenTLS, err error) {
	if s.Certificate, err = readFile(o.TLSCert); err != nil {
		return s, fmt.Errorf("the agent's certificate: %w", err)
	}
	key, err := readFile(o.TLSKey)
	if err != nil {
		return s, fmt.Errorf("the key of the agent's certificate: %w", err)
	}
	s.Key = secret.New(key)
	if s.ClientCA, err = readFile(o.TLSClientCA); err != nil {
		return s, fmt.Errorf("the runtime's CA: %w", err)
	}
	return s, nil
}

const (
	// handshakeTimeout bounds how long a stranger may take to show who it is.
	handshakeTimeout = 10 * time.Second
	// maxHandshakes is how many strangers are heard at the same time.
	maxHandshakes = 16
)

// knownListener returns only connections whose handshake has succeeded. The
// network is open to anybody: who says nothing, or cannot show a certificate,
// costs one of a few places for a short time and delays nobody beyond.
type knownListener struct {
	net.Listener
	log   *slog.Logger
	conns chan net.Conn

	mu   sync.Mutex
	err  error
	end  context.CancelFunc
	done chan struct{} // closed when nobody will send any more
}

func listenKnown(l net.Listener, config *tls.Config, log *slog.Logger) *knownListener {
	ctx, end := context.WithCancel(context.Background())
	k := &knownListener{Listener: l, log: log, conns: make(chan net.Conn), end: end, done: make(chan struct{})}
	go k.accept(ctx, config)
	return k
}

func (k *knownListener) accept(ctx context.Context, config *tls.Config) {
	defer close(k.done)
	places := make(chan struct{}, maxHandshakes)
	var hearing sync.WaitGroup
	defer hearing.Wait()
	defer k.end()
	for {
		conn, err := k.Listener.Accept()
		if err != nil {
			k.mu.Lock()
			k.err = err
			k.mu.Unlock()
			return
		}
		places <- struct{}{} // bounded by handshakeTimeout
		hearing.Go(func() {
			defer func() { <-places }()
			k.hear(ctx, tls.Server(conn, config))
		})
	}
}

func (k *knownListener) hear(ctx context.Context, conn *tls.Conn) {
	bounded, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(bounded); err != nil {
		k.log.Warn("a connection was refused", slog.String("from", conn.RemoteAddr().String()), slog.Any("err", err))
		_ = conn.Close()
		return
	}
	select {
	case k.conns <- conn:
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// Accept returns the next connection of a peer that is known.
func (k *knownListener) Accept() (net.Conn, error) {
	select {
	case conn := <-k.conns:
		return conn, nil
	case <-k.done:
		k.mu.Lock()
		defer k.mu.Unlock()
		return nil, k.err
	}
}

// Close ends the handshakes under way too, and waits for them.
func (k *knownListener) Close() error {
	k.end()
	err := k.Listener.Close()
	<-k.done
	return err
}
