package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// ceilingMode is the hidden command under which this program is the bare
// server that a broker is compared with.
const ceilingMode = "ceiling"

// ceiling is the CPU time of what no broker can avoid: that of a bare server
// which does this cryptography and nothing else.
type ceiling struct {
	// Attestation is one connection: accept, TLS 1.3 with a P-256 certificate,
	// ECDSA on P-384 of the report, ES256 of the token, an ephemeral key and
	// ECDH on P-256 for the guest's key, close.
	Attestation time.Duration
	// Release is one small HTTP request over an open TLS connection with an
	// ephemeral key, ECDH on P-256, a content key and AES-256-GCM.
	Release time.Duration
}

// bare is the server of the ceilings, in a process of its own.
type bare struct {
	cmd                  *exec.Cmd
	stdin                io.WriteCloser
	Attestation, Release string // addresses
}

func startBare(ctx context.Context) (_ *bare, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bare{cmd: exec.CommandContext(ctx, self, ceilingMode)}
	b.cmd.Stderr = os.Stderr
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(stdout).Decode(b); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bare) close() error { return errors.Join(b.stdin.Close(), b.cmd.Wait()) }

// insecure is for a server of our own that holds nothing.
var insecure = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above

// measure asks the bare server. One client at a time gives the sum of what each
// step costs by itself; many at once keep its caches warm and its threads from
// sleeping, which no server that waits for a disk in between can have.
func (b *bare) measure(ctx context.Context, parallel int) (c ceiling, err error) {
	dialer := tls.Dialer{Config: insecure}
	attest, err := drive(ctx, b.cmd.Process.Pid, attestations/2, parallel, func(ctx context.Context, _, _ int) error {
		conn, err := dialer.DialContext(ctx, "tcp", b.Attestation)
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte{1})
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		return c, err
	}
	transport := &http.Transport{TLSClientConfig: insecure, MaxIdleConnsPerHost: parallel}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	release, err := drive(ctx, b.cmd.Process.Pid, releases/2, parallel, func(ctx context.Context, _, _ int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+b.Release, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, resp.Body.Close())
	})
	return ceiling{Attestation: attest.cost(), Release: release.cost()}, err
}

// serveCeiling is the bare server, until its standard input ends.
func serveCeiling(_ context.Context, out io.Writer) error {
	w, err := newWork()
	if err != nil {
		return err
	}
	cert, err := w.certificate()
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	attestation, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	release, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(bare{Attestation: attestation.Addr().String(), Release: release.Addr().String()}); err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(w.release), TLSConfig: config, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 2)
	go func() { served <- srv.ServeTLS(release, "", "") }()
	go func() { served <- w.attestAll(attestation) }()
	_, err = io.Copy(io.Discard, os.Stdin)
	err = errors.Join(err, srv.Close(), attestation.Close())
	for range 2 {
		if e := <-served; !errors.Is(e, http.ErrServerClosed) && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
