package registry

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Config says how registries are reached. The zero value reaches public
// registries over TLS with the system's roots, anonymously.
type Config struct {
	// InsecureHTTPHosts names the hosts ("host:port" as in the image name) that
	// may be spoken to without TLS. It and the insecure of Registries are the
	// only ways to plain HTTP.
	InsecureHTTPHosts []string
	RootCAs           *x509.CertPool     // nil: the system's roots
	TLS               map[string]HostTLS // by host, as in the image name
	Proxy             Proxy
	// ProxyFromEnvironment uses HTTPS_PROXY and its like where Proxy is empty. It
	// is for tools: a guest's environment is not its owner's.
	ProxyFromEnvironment bool
	Auth                 secret.Bytes // docker auth.json; empty: anonymous
	// Helper answers for the credential helpers that Auth names; nil: an Auth that
	// names one is an error. See [ExecHelper].
	Helper Helper
	// TokenHosts names token servers ("host" or "host:port", as in their URL) that
	// may be given a registry's credential although their name has nothing in
	// common with the registry's, or the registry speaks plain HTTP.
	TokenHosts []string
	// Registries is registries.conf; nil: every registry is where its name says.
	Registries *Registries
	UserAgent  string
	Retry      Retry
	// Window is how many bytes of large blobs may be in memory ahead of who reads
	// them, fetched over several connections where one is slower than the reader.
	// 0: 3 MiB, or a sixteenth of the process's memory limit if that is less.
	// Below 1.5 MiB, also below 0: every blob comes over one connection.
	Window int64
	Clock  Clock // nil: the system's
}

// A Client reaches repositories under one configuration. It is safe for
// concurrent use and keeps connections and tokens for as long as it lives.
type Client struct {
	cfg    Config
	rules  []Rule
	creds  credentials
	wire   http.RoundTripper
	window *window

	mu    sync.Mutex
	ready map[string]http.RoundTripper // authenticated, by repository and scope
}

// NewClient checks the configuration. It makes no connection.
func NewClient(c Config) (*Client, error) {
	creds, err := parseAuth(c.Auth, c.Helper)
	if err != nil {
		return nil, err
	}
	rules, err := c.Registries.rules()
	if err != nil {
		return nil, err
	}
	c.Retry = c.Retry.withDefaults()
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	wire, err := newWires(c)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: c, rules: rules, creds: creds, wire: wire, window: newWindow(c.Window), ready: map[string]http.RoundTripper{}}, nil
}

// Transport makes the connections of the client, by its proxies, CAs and client
// certificates, for what lies beside registries. It knows no credentials, tries
// nothing again, and leaves it to its user where plain HTTP is allowed.
func (c *Client) Transport() http.RoundTripper { return c.wire }

// Repository returns the repository that ref lies in. It makes no connection.
// It fails with [ErrBlocked] if [Config.Registries] forbids the name.
func (c *Client) Repository(ref Reference) (*Repository, error) {
	found, err := places(c.rules, ref)
	if err != nil {
		return nil, err
	}
	r := &Repository{ref: Reference{Host: ref.Host, Path: ref.Path}, endpoints: make([]*endpoint, len(found))}
	for i, p := range found {
		if r.endpoints[i], err = c.endpoint(p); err != nil {
			return nil, err
		}
	}
	home := place{ref: r.ref}
	if last := found[len(found)-1]; last.ref == r.ref {
		home.plain = last.plain
	}
	r.home, err = c.endpoint(home)
	return r, err
}

// A Repository is one repository of a registry, and its mirrors.
type Repository struct {
	ref       Reference   // host and path only, as asked for
	endpoints []*endpoint // to pull from, in order; the last one is no mirror
	home      *endpoint   // to push to: never a mirror, never rewritten
	suspects  suspects
}

// Home returns the repository where it is written: under its own name, where no mirror
// stands in for it. Whoever changes what lies there must read it there as well: what a
// mirror that is behind, or that lies, has said would be written back, or signed.
func (r *Repository) Home() *Repository {
	return &Repository{ref: r.ref, endpoints: []*endpoint{r.home}, home: r.home}
}

func (r *Repository) origin() *endpoint { return r.endpoints[len(r.endpoints)-1] }

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
	failed := failures{origin: r.origin()}
	for _, e := range r.order(strings.Contains(version, ":")) {
		m, err := e.manifest(ctx, version)
		if err == nil || ctx.Err() != nil {
			return m, err
		}
		failed.add(e, err)
	}
	return Manifest{}, failed.err()
}

func (e *endpoint) manifest(ctx context.Context, version string) (Manifest, error) {
	resp, err := e.get(ctx, e.url("manifests", version), http.Header{"Accept": {acceptTypes}}, http.StatusOK)
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
// connection is mended on the way, as [Config.Retry] allows, and where a mirror
// gives up the next one goes on. What came wrong may be asked for again, see
// [Elsewhere].
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	body, err := newResumer(ctx, r, desc)
	if err != nil {
		return nil, fmt.Errorf("blob %s of %s: %w", desc.Digest, r.ref.Name(), err)
	}
	return newVerifyReader(body, desc, func() { r.suspects.add(desc.Digest, body.sent) }), nil
}
