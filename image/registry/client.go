package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Config says how registries are reached. The zero value reaches public
// registries over TLS with the system's roots, anonymously.
type Config struct {
	// InsecureHTTPHosts names the hosts ("host:port" as in the image name) that
	// may be spoken to without TLS. It is the only way to plain HTTP.
	InsecureHTTPHosts []string
	RootCAs           *x509.CertPool // nil: the system's roots
	Auth              secret.Bytes   // docker auth.json; empty: anonymous
	// TokenHosts names token servers ("host" or "host:port", as in their URL) that
	// may be given a registry's credential although their name has nothing in
	// common with the registry's, or the registry speaks plain HTTP.
	TokenHosts []string
	UserAgent  string
	Retry      Retry
	Clock      Clock // nil: the system's
}

// A Client reaches repositories under one configuration. It is safe for
// concurrent use and keeps connections and tokens for as long as it lives.
type Client struct {
	cfg   Config
	creds credentials
	base  http.RoundTripper

	mu    sync.Mutex
	ready map[string]http.RoundTripper // authenticated, by repository and scope
}

// NewClient checks the configuration. It makes no connection.
func NewClient(c Config) (*Client, error) {
	creds, err := parseAuth(c.Auth)
	if err != nil {
		return nil, err
	}
	c.Retry = c.Retry.withDefaults()
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	base := &retrier{policy: c.Retry, clock: c.Clock, next: newGuard(c)}
	return &Client{cfg: c, creds: creds, base: base, ready: map[string]http.RoundTripper{}}, nil
}

// Repository returns the repository that ref lies in. It makes no connection.
func (c *Client) Repository(ref Reference) (*Repository, error) {
	opts := []name.Option{name.StrictValidation}
	plain := slices.Contains(c.cfg.InsecureHTTPHosts, ref.Host)
	if plain {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(ref.Name(), opts...)
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", ref.Name(), err)
	}
	return &Repository{client: c, ref: Reference{Host: ref.Host, Path: ref.Path}, name: repo, plain: plain}, nil
}

// A Repository is one repository of a registry.
type Repository struct {
	client *Client
	ref    Reference // host and path only
	name   name.Repository
	plain  bool
}

// http returns a client that authenticates with the given scope. A failed
// handshake is not remembered.
func (r *Repository) http(ctx context.Context, scope string) (*http.Client, error) {
	key := r.ref.Name() + " " + scope
	r.client.mu.Lock()
	rt, ok := r.client.ready[key]
	r.client.mu.Unlock()
	if !ok {
		var err error
		creds, base := r.client.creds.lookup(r.ref), r.client.base
		if creds != authn.Anonymous {
			base = &leash{home: r.name.RegistryStr(), plain: r.plain, tokenHosts: r.client.cfg.TokenHosts, next: base}
		}
		rt, err = transport.NewWithContext(inHandshake(ctx), r.name.Registry, creds, base, []string{r.name.Scope(scope)})
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", r.ref.Host, err)
		}
		r.client.mu.Lock()
		r.client.ready[key] = rt // two at once: the last one stays, both work
		r.client.mu.Unlock()
	}
	return &http.Client{Transport: rt, CheckRedirect: checkRedirect}, nil
}

// url builds an endpoint of the distribution API. The transport below settles
// the scheme for the registry's own host.
func (r *Repository) url(parts ...string) string {
	scheme := "https"
	if r.plain {
		scheme = "http"
	}
	return scheme + "://" + r.name.RegistryStr() + "/v2/" + r.name.RepositoryStr() + "/" + strings.Join(parts, "/")
}

// get makes a GET and returns the response if its status is among the wanted.
func (r *Repository) get(ctx context.Context, url string, header http.Header, want ...int) (*http.Response, error) {
	cl, err := r.http(ctx, transport.PullScope)
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
		return nil, err
	}
	if err := transport.CheckError(resp, want...); err != nil {
		_ = resp.Body.Close()
		if te, ok := errors.AsType[*transport.Error](err); ok && te.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return nil, err
	}
	return resp, nil
}

// Manifest fetches the manifest or index that version (a tag or a digest)
// names, and verifies a digest. It fails with [ErrNotFound], [ErrMalformed] or
// a [*DigestError]; everything else means that the registry did not deliver.
func (r *Repository) Manifest(ctx context.Context, version string) (Manifest, error) {
	m, err := r.manifest(ctx, version)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s of %s: %w", version, r.ref.Name(), err)
	}
	return m, nil
}

func (r *Repository) manifest(ctx context.Context, version string) (Manifest, error) {
	resp, err := r.get(ctx, r.url("manifests", version), http.Header{"Accept": {acceptTypes}}, http.StatusOK)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return Manifest{}, err
	}
	if len(raw) > MaxManifest {
		return Manifest{}, malformed("more than %d bytes", MaxManifest)
	}
	var wanted digest.Digest
	if strings.Contains(version, ":") {
		wanted = digest.Digest(version)
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return newManifest(raw, strings.TrimSpace(mediaType), wanted)
}

// Blob opens a blob. The reader ends in io.EOF only if the bytes have the
// length and digest of desc; what it gave before that is unverified. A broken
// connection is mended on the way, as [Config.Retry] allows.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	body, err := newResumer(ctx, r, desc)
	if err != nil {
		return nil, fmt.Errorf("blob %s of %s: %w", desc.Digest, r.ref.Name(), err)
	}
	return newVerifyReader(body, desc), nil
}
