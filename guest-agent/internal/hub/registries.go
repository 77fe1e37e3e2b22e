package hub

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Limits in bytes of what configures registries.
const (
	maxRegistries  = 1 << 20
	maxAuth        = 1 << 20
	maxCertificate = 256 << 10
)

// registrySource makes the client that pulls reach registries with. Upstream
// fetches its configuration once and keeps it on disk (guest-protocol 14.1);
// here it is asked for on every pull, over the one attested session, and lies
// in memory alone. As long as it says the same, the client with its connections
// and tokens stays.
type registrySource struct {
	cfg   registry.Config
	conf  string            // location of registries.conf
	auth  string            // location of auth.json
	certs map[string]string // locations of client certificates, by host
	from  locations

	mu      sync.Mutex
	state   [sha256.Size]byte // of what the client was made from
	current *registry.Client
}

// client returns the client for the configuration in force. A configuration
// that cannot be had or read refuses the pull: it may block, or redirect.
func (r *registrySource) client(ctx context.Context) (*registry.Client, error) {
	cfg := r.cfg
	h := sha256.New()
	seen := func(s secret.Bytes) {
		sum := sha256.Sum256(s.Reveal())
		_, _ = h.Write(sum[:])
	}
	if r.conf != "" && cfg.Registries == nil {
		raw, err := r.from.read(ctx, r.conf, maxRegistries)
		if err != nil {
			return nil, fmt.Errorf("registries.conf: %w", err)
		}
		seen(raw)
		if cfg.Registries, err = registry.ParseRegistries(raw.Reveal()); err != nil {
			return nil, fault.New(fault.PolicyError, err)
		}
	}
	if r.auth != "" {
		var err error
		if cfg.Auth, err = r.from.read(ctx, r.auth, maxAuth); err != nil {
			return nil, fmt.Errorf("registry credentials: %w", err)
		}
		defer cfg.Auth.Destroy() // what the client needs of it, it copies
		seen(cfg.Auth)
	}
	cfg.TLS = maps.Clone(cfg.TLS)
	for _, host := range slices.Sorted(maps.Keys(r.certs)) {
		raw, err := r.from.read(ctx, r.certs[host], maxCertificate)
		if err != nil {
			return nil, fmt.Errorf("client certificate for %s: %w", host, err)
		}
		seen(raw)
		if err := addCertificate(&cfg, host, raw); err != nil {
			return nil, err
		}
	}
	return r.keep([sha256.Size]byte(h.Sum(nil)), cfg)
}

// keep returns the client that there is if its configuration is the same.
func (r *registrySource) keep(state [sha256.Size]byte, cfg registry.Config) (*registry.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && r.state == state {
		return r.current, nil
	}
	c, err := registry.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	r.state, r.current = state, c
	return c, nil
}

// addCertificate reads a PEM text that holds a chain and its key.
func addCertificate(cfg *registry.Config, host string, raw secret.Bytes) error {
	defer raw.Destroy()
	pair, err := tls.X509KeyPair(raw.Reveal(), raw.Reveal())
	if err != nil { // the error could quote the text
		return fault.New(fault.ImageUnavailable, errors.New("the client certificate for "+host+" is not a PEM text of certificates and their key"))
	}
	if cfg.TLS == nil {
		cfg.TLS = map[string]registry.HostTLS{}
	}
	own := cfg.TLS[host]
	own.Certificate = &pair
	cfg.TLS[host] = own
	return nil
}
