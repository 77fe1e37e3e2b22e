package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// An endpoint is one place where a repository lies.
type endpoint struct {
	client *Client
	place
	name name.Repository
	down atomic.Bool // it failed: others are asked first
}

func (c *Client) endpoint(p place) (*endpoint, error) {
	opts := []name.Option{name.StrictValidation}
	p.plain = p.plain || slices.Contains(c.cfg.InsecureHTTPHosts, p.ref.Host)
	if p.plain {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(p.ref.Name(), opts...)
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", p.ref.Name(), err)
	}
	return &endpoint{client: c, place: p, name: repo}, nil
}

// http returns a client that authenticates with the given scope. A failed
// handshake is not remembered.
func (e *endpoint) http(ctx context.Context, scope string) (*http.Client, error) {
	key := fmt.Sprint(e.ref.Name(), " ", scope, " ", e.plain)
	e.client.mu.Lock()
	rt, ok := e.client.ready[key]
	e.client.mu.Unlock()
	if !ok {
		var err error
		creds, base := e.client.creds.lookup(e.ref), e.base()
		if creds != authn.Anonymous {
			base = &leash{home: e.name.RegistryStr(), plain: e.plain, tokenHosts: e.client.cfg.TokenHosts, next: base}
		}
		rt, err = transport.NewWithContext(inHandshake(ctx), e.name.Registry, creds, base, []string{e.name.Scope(scope)})
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", e.ref.Host, answered(err))
		}
		e.client.mu.Lock()
		e.client.ready[key] = rt // two at once: the last one stays, both work
		e.client.mu.Unlock()
	}
	return &http.Client{Transport: rt, CheckRedirect: checkRedirect}, nil
}

// base is what lies below authentication.
func (e *endpoint) base() http.RoundTripper {
	g := &guard{cfg: e.client.cfg, plainHosts: e.client.cfg.InsecureHTTPHosts, next: e.client.wire}
	if e.plain {
		g.plainHosts = append(slices.Clone(g.plainHosts), e.name.RegistryStr())
	}
	return &retrier{policy: e.client.cfg.Retry, clock: e.client.cfg.Clock, next: g}
}

// url builds an endpoint of the distribution API. The transport below settles
// the scheme for the registry's own host.
func (e *endpoint) url(parts ...string) string {
	scheme := "https"
	if e.plain {
		scheme = "http"
	}
	return scheme + "://" + e.name.RegistryStr() + "/v2/" + e.name.RepositoryStr() + "/" + strings.Join(parts, "/")
}

// get makes a GET and returns the response if its status is among the wanted.
func (e *endpoint) get(ctx context.Context, url string, header http.Header, want ...int) (*http.Response, error) {
	cl, err := e.http(ctx, transport.PullScope)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := cl.Do(req)
	if err != nil {
		return nil, answered(err) // of a token server
	}
	if err := answered(transport.CheckError(resp, want...)); err != nil {
		_ = resp.Body.Close()
		if te, ok := errors.AsType[*transport.Error](err); ok && te.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return nil, err
	}
	return resp, nil
}

// order lists the endpoints that may be asked for something by tag or by
// digest: as configured, but those that failed before last.
func (r *Repository) order(byDigest bool) []*endpoint {
	var up, down []*endpoint
	for _, e := range r.endpoints {
		switch {
		case (e.from == "digest-only" && !byDigest) || (e.from == "tag-only" && byDigest):
		case e.down.Load():
			down = append(down, e)
		default:
			up = append(up, e)
		}
	}
	return append(up, down...)
}

// failures collects what the endpoints of a repository answered instead.
type failures struct {
	origin *endpoint
	last   error // of the origin, if it was asked
	others []string
}

func (f *failures) add(e *endpoint, err error) {
	if !errors.Is(err, ErrNotFound) {
		e.down.Store(true)
	}
	if e == f.origin || f.last == nil {
		if f.last != nil {
			f.others = append(f.others, f.last.Error())
		}
		f.last = err
		return
	}
	f.others = append(f.others, fmt.Sprintf("%s: %v", e.ref.Host, err))
}

// err wraps the origin's error alone: that a mirror has not got something does
// not mean that it does not exist.
func (f *failures) err() error {
	if f.last == nil || len(f.others) == 0 {
		return f.last
	}
	return fmt.Errorf("%w (elsewhere: %s)", f.last, strings.Join(f.others, "; "))
}
