package collateral

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/pause"
)

// WebConfig says how a service is asked. The zero value is what a broker wants.
type WebConfig struct {
	// CA are trusted beside the system's authorities, for a PCCS with a
	// certificate of its own. Nil means none.
	CA *x509.CertPool
	// InsecureHTTP allows addresses without TLS. What comes is signed by the
	// vendor, so this gives away which platforms are asked for, and lets anyone
	// on the way withhold news of a revocation. Loopback addresses need no leave.
	InsecureHTTP bool
	Attempts     int           // 0 means 4
	AttemptTime  time.Duration // of one attempt; 0 means 10 s
	MaxWait      time.Duration // between two attempts, more is given up; 0 means 20 s
	// Wait waits between attempts; nil means [pause.For].
	Wait func(ctx context.Context, d time.Duration) error
	Now  func() time.Time // nil means time.Now
}

// web asks one service.
type web struct {
	base   *url.URL
	cfg    WebConfig
	client *http.Client
}

func newWeb(base string, c WebConfig) (*web, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("collateral: %w", err)
	}
	switch {
	case u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("collateral: %q is not an address like https://host/path", base)
	case u.Scheme == "http" && !c.InsecureHTTP && !loopback(u.Hostname()):
		return nil, fmt.Errorf("collateral: %q has no TLS", base)
	}
	if c.Attempts == 0 {
		c.Attempts = 4
	}
	if c.AttemptTime == 0 {
		c.AttemptTime = 10 * time.Second
	}
	if c.MaxWait == 0 {
		c.MaxWait = 20 * time.Second
	}
	if c.Wait == nil {
		c.Wait = pause.For
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // it is one
	transport.TLSClientConfig = &tls.Config{RootCAs: c.CA, MinVersion: tls.VersionTLS12}
	transport.MaxResponseHeaderBytes = 4 * maxChain // chains travel in headers
	client := &http.Client{
		Transport: transport,
		// The services that are named do not redirect; a redirect leads to
		// somebody who was not.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &web{base: u, cfg: c, client: client}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// answer is what a service said.
type answer struct {
	body   []byte
	header http.Header
	source string
}

// get asks for a path below the base, again and again while that may help: when
// the connection broke, and when the service says that it is busy or broken.
func (w *web) get(ctx context.Context, path string, query url.Values, limit int) (answer, error) {
	u := w.base.JoinPath(path)
	u.RawQuery = query.Encode()
	pause := 500 * time.Millisecond
	for attempt := 1; ; attempt++ {
		a, err := w.once(ctx, u, limit)
		var again *UnavailableError
		if err == nil || !errors.As(err, &again) {
			return a, err
		}
		d := max(pause+jitter(pause/2), again.RetryAfter)
		if attempt == w.cfg.Attempts || d > w.cfg.MaxWait || ctx.Err() != nil {
			return a, err
		}
		if err := w.cfg.Wait(ctx, d); err != nil {
			return a, again
		}
		pause *= 2
	}
}

func (w *web) once(ctx context.Context, u *url.URL, limit int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.AttemptTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{}, err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return answer{}, &UnavailableError{Err: err} // it names the address
	}
	defer func() { _ = res.Body.Close() }() // only read from
	switch c := res.StatusCode; {
	case c == http.StatusOK:
	case c == http.StatusNotFound || c == http.StatusGone:
		return answer{}, fmt.Errorf("%s: %w (status %d)", u, ErrAbsent, c)
	case c == http.StatusTooManyRequests || c == http.StatusRequestTimeout || c >= 500:
		return answer{}, &UnavailableError{
			RetryAfter: retryAfter(res.Header.Get("Retry-After"), w.cfg.Now()),
			Err:        fmt.Errorf("%s: status %d", u, c),
		}
	default:
		return answer{}, fmt.Errorf("%s: status %d", u, c)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(limit)+1))
	if err != nil { // truncated, or too slow
		return answer{}, &UnavailableError{Err: fmt.Errorf("%s: %w", u, err)}
	}
	if len(body) > limit {
		return answer{}, fmt.Errorf("%s: the answer is larger than %d bytes", u, limit)
	}
	return answer{body: body, header: res.Header, source: w.base.Host}, nil
}

// retryAfter reads the header (RFC 9110 section 10.2.3): seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 20); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// jitter spreads clients that were turned away together.
func jitter(limit time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(limit)+1))
	if err != nil {
		return 0
	}
	return time.Duration(n.Int64())
}
