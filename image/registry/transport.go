package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// guard is the innermost transport: whatever the layers above decide, no plain
// HTTP request leaves for a host that the configuration does not name.
// go-containerregistry falls back to HTTP for loopback and private addresses
// by itself, redirects may change the scheme, and a token realm is the
// registry's own choice, so the rule is enforced where requests go out.
type guard struct {
	cfg        Config
	plainHosts []string
	next       http.RoundTripper
}

// errRefused marks requests that this package would not send. Nothing about
// them gets better by trying again.
var errRefused = errors.New("refused")

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !slices.Contains(g.plainHosts, req.URL.Host) {
		if req.Body != nil {
			_ = req.Body.Close() // RoundTrip must close it
		}
		return nil, fmt.Errorf("%w: %w", errRefused, &PlainHTTPError{Host: req.URL.Host})
	}
	ctx, cancel := context.WithCancel(req.Context())
	req = req.Clone(ctx) // a RoundTripper must not change its request
	if g.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", g.cfg.UserAgent)
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		cancel()
		if errors.Is(err, io.EOF) { // hung up on; whoever reads a blob would take it for the end
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	body := &stallReader{body: resp.Body, limit: g.cfg.Retry.Stall, clock: g.cfg.Clock, abort: cancel}
	resp.Body = boundHandshake(ctx, body)
	return resp, nil
}
