package main

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// ceilingMode is the hidden command under which this program is the bare
// server that a broker is compared with.
const ceilingMode = "ceiling"

// ceiling is the CPU time of what no broker can avoid.
type ceiling struct {
	Handshake time.Duration // accept, TLS 1.3 with a P-256 certificate, close: the server's side
	Exchange  time.Duration // one small HTTP request over an open TLS connection
	Verify    time.Duration // ECDSA on P-384, of the report
	Sign      time.Duration // ES256, of the token
	Agree     time.Duration // an ephemeral key and ECDH on P-256
	Seal      time.Duration // a content key and AES-256-GCM of a small value
}

// attestation is a handshake over a new connection: TLS, the report's
// signature, the token's, and the key agreement that the guest's key is for.
func (c ceiling) attestation() time.Duration { return c.Handshake + c.Verify + c.Sign + c.Agree }

// release is one answer over an open connection.
func (c ceiling) release() time.Duration { return c.Exchange + c.Agree + c.Seal }

// measureCeiling runs the bare server in a process of its own and asks it.
func measureCeiling(ctx context.Context) (c ceiling, err error) {
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	cmd := exec.CommandContext(ctx, self, ceilingMode)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return c, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	if err := cmd.Start(); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, stdin.Close(), cmd.Wait()) }()
	lines := json.NewDecoder(stdout)
	var addr string
	if err := lines.Decode(&addr); err != nil {
		return c, err
	}
	if err := lines.Decode(&c); err != nil { // the primitives
		return c, err
	}
	next := func(n int, use func() error) (time.Duration, error) {
		var before, after time.Duration
		if _, err := fmt.Fprintln(stdin); err != nil {
			return 0, err
		}
		if err := lines.Decode(&before); err != nil {
			return 0, err
		}
		for range n {
			if err := use(); err != nil {
				return 0, err
			}
		}
		if _, err := fmt.Fprintln(stdin); err != nil {
			return 0, err
		}
		err := lines.Decode(&after)
		return (after - before) / time.Duration(n), err
	}
	one := func(keep bool) func() error {
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a server of our own that holds nothing
			DisableKeepAlives: !keep,
		}}
		return func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return errors.Join(err, resp.Body.Close())
		}
	}
	if c.Exchange, err = next(4000, one(true)); err != nil {
		return c, err
	}
	whole, err := next(1000, one(false))
	c.Handshake = whole - c.Exchange
	return c, err
}

// serveCeiling times the primitives, then serves and tells its CPU time at
// every line of standard input.
func serveCeiling(_ context.Context, out io.Writer) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	if err := lines.Encode(ln.Addr().String()); err != nil {
		return err
	}
	c, err := primitives(key)
	if err != nil {
		return err
	}
	if err := lines.Encode(c); err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, MinVersion: tls.VersionTLS13},
		ReadHeaderTimeout: time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := lines.Encode(ownCPU()); err != nil {
			return err
		}
	}
	if err := srv.Close(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no way to fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func primitives(key *ecdsa.PrivateKey) (c ceiling, err error) {
	report, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return c, err
	}
	text := make([]byte, 672) // what an SNP report signs
	sum := sha512.Sum384(text)
	signature, err := ecdsa.SignASN1(rand.Reader, report, sum[:])
	if err != nil {
		return c, err
	}
	c.Verify = timed(func() error {
		sum := sha512.Sum384(text)
		if !ecdsa.VerifyASN1(&report.PublicKey, sum[:], signature) {
			return errors.New("the report's signature does not verify")
		}
		return nil
	}, &err)
	token := make([]byte, 4096)
	c.Sign = timed(func() error {
		sum := sha256.Sum256(token)
		_, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		return err
	}, &err)
	guest, gerr := ecdh.P256().GenerateKey(rand.Reader)
	if gerr != nil {
		return c, gerr
	}
	c.Agree = timed(func() error {
		ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		_, err = ephemeral.ECDH(guest.PublicKey())
		return err
	}, &err)
	c.Seal = timed(func() error {
		content := make([]byte, 32)
		rand.Read(content)
		block, err := aes.NewCipher(content)
		if err != nil {
			return err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return err
		}
		aead.Seal(nil, nil, text[:32], nil)
		return nil
	}, &err)
	return c, err
}

// timed returns the median CPU time of an operation over several batches.
func timed(op func() error, failed *error) time.Duration {
	const batches, each = 7, 300
	var all []time.Duration
	for range batches {
		start := ownCPU()
		for range each {
			if err := op(); err != nil {
				*failed = errors.Join(*failed, err)
				return 0
			}
		}
		all = append(all, (ownCPU()-start)/each)
	}
	slices.Sort(all)
	return all[batches/2]
}
