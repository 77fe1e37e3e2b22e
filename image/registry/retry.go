package registry

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retry bounds the patience with a registry. The zero value is a sensible
// patience, not none.
type Retry struct {
	// Attempts is how often one request is made in all, and how often in a row a
	// blob may break without getting ahead. 0: 5. 1: nothing is tried again.
	Attempts int
	// Base is the wait before the second attempt; it doubles with every further
	// one, up to Max. Half of each wait is random. 0: 500 ms and 20 s. A registry
	// that asks by Retry-After for more than Max is not asked again.
	Base, Max time.Duration
	// Stall is how long a body may bring no byte while someone waits for one. 0: 30 s.
	Stall time.Duration
}

func (r Retry) withDefaults() Retry {
	if r.Attempts <= 0 {
		r.Attempts = 5
	}
	if r.Base <= 0 {
		r.Base = 500 * time.Millisecond
	}
	if r.Max <= 0 {
		r.Max = 20 * time.Second
	}
	if r.Stall <= 0 {
		r.Stall = 30 * time.Second
	}
	return r
}

// wait returns the wait after the given number of failures in a row, from 1.
// The random half keeps guests that failed together from returning together.
func (r Retry) wait(failures int) time.Duration {
	d := r.Base
	for i := 1; i < failures && d < r.Max; i++ {
		d *= 2
	}
	d = min(d, r.Max)
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	half := uint64(d / 2)
	if half == 0 {
		return d
	}
	return d - time.Duration(binary.NativeEndian.Uint64(b[:])%half)
}

// retrier repeats requests that changed nothing: GET and HEAD. It sits below
// authentication, so that challenges and tokens are repeated as well.
type retrier struct {
	policy Retry
	clock  Clock
	next   http.RoundTripper
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	repeatable := (req.Method == http.MethodGet || req.Method == http.MethodHead) && (req.Body == nil || req.Body == http.NoBody)
	for failures := 1; ; failures++ {
		resp, err := r.next.RoundTrip(req)
		if !repeatable || isLane(req.Context()) || failures >= r.policy.Attempts || req.Context().Err() != nil || !passing(resp, err) {
			return resp, err
		}
		wait := r.policy.wait(failures)
		if resp != nil {
			if asked := retryAfter(resp.Header, r.clock.Now()); asked > r.policy.Max {
				return resp, nil
			} else if asked > wait {
				wait = asked
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // lets the connection be used again
			_ = resp.Body.Close()
		}
		if sleepErr := r.clock.Sleep(req.Context(), wait); sleepErr != nil {
			return nil, sleepErr
		}
	}
}

// passing reports whether the failure may be gone the next time.
func passing(resp *http.Response, err error) bool {
	if err != nil {
		return passingError(err)
	}
	return slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
	}, resp.StatusCode)
}

// passingError excludes what time does not heal: our own refusals, names that
// do not exist, and certificates.
func passingError(err error) bool {
	if errors.Is(err, errRefused) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return false
	}
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	alert := isOp && op.Op == "remote error" // as crypto/tls calls what the other side says
	return !cert && !unknown && !record && !alert
}

// retryAfter reads the header of RFC 9110 section 10.2.3, seconds or a date.
// What is not understood counts as absent.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// ErrStalled says that a registry keeps a connection open and sends nothing.
var ErrStalled = errors.New("the registry sends nothing")

// stallReader ends a body on which a read waits too long. Only the time that a
// read waits counts, not the time that the consumer takes between reads.
type stallReader struct {
	body  io.ReadCloser
	limit time.Duration
	clock Clock
	abort func() // ends the pending read
}

func (s *stallReader) Read(p []byte) (int, error) {
	stop := s.clock.AfterFunc(s.limit, s.abort)
	n, err := s.body.Read(p)
	if !stop() && n == 0 && err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w for %s", ErrStalled, s.limit)
	}
	return n, err
}

func (s *stallReader) Close() error {
	err := s.body.Close()
	s.abort() // frees the request's context
	return err
}
