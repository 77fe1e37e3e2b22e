package settings

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// maxParallelLayers bounds what a document may ask for: each layer under way
// costs memory and file descriptors.
const maxParallelLayers = 64

const maxImageKeys = 16

// Image configures image pulls (guest-protocol 14.1). Locations are kbs://,
// file:// or a bare path.
type Image struct {
	// PolicyURI locates policy.json. It wins over PolicyInline. With neither,
	// every pull is refused.
	PolicyURI    string
	PolicyInline []byte
	// LookasideURI locates the registries.d document that says where GPG
	// signatures lie. It wins over LookasideInline.
	LookasideURI    string
	LookasideInline []byte
	// ExtraRoots are PEM certificates that registries may end in beside the
	// system's roots.
	ExtraRoots []byte
	// Registries says where images really come from. RegistriesURI locates it
	// where it is nil: inline wins here, other than with the policy.
	Registries    *registry.Registries
	RegistriesURI string
	AuthURI       string // locates auth.json; empty: anonymous
	Proxy         registry.Proxy
	RegistryTLS   []RegistryTLS
	// KeyURIs locate private keys for layers that are encrypted for key pairs (JWE,
	// PKCS#7 and PKCS#11 packets). Layers of the broker's keys need none.
	KeyURIs []string
	// WorkDir is where layers are kept; empty: in the agent's state directory.
	WorkDir string
	// ParallelLayers of one image are pulled at a time; 0: the puller's default.
	ParallelLayers int
	ImageStore
}

// RegistryTLS is what one registry needs to be reached, and only that one.
type RegistryTLS struct {
	Host  string // with its port, as in image names
	Roots []byte // PEM; empty: those of all registries
	// CertificateURI locates a PEM text with a client certificate, those between
	// it and its root, and its key. Empty: none is shown.
	CertificateURI string
}

// RootCAs returns the system's roots with ExtraRoots, or nil when there are no
// extra ones.
func (i Image) RootCAs() (*x509.CertPool, error) {
	if len(i.ExtraRoots) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a guest image may hold no roots at all
	}
	return appendPEM(pool, i.ExtraRoots)
}

// PlainHTTPHosts are the hosts that Registries allows to be spoken to without
// TLS, all of them and by their own name: lookaside servers may be there too.
// Digests and signatures still protect the image.
func (i Image) PlainHTTPHosts() (hosts []string) {
	if i.Registries == nil {
		return nil
	}
	for _, r := range i.Registries.Rules {
		if r.Insecure && (r.Prefix == "" || r.Prefix == r.Location) && !strings.ContainsAny(r.Location, "/*") {
			hosts = append(hosts, r.Location)
		}
	}
	return hosts
}

// RootCAs returns the pool of t.Roots, or nil for the roots of all registries.
func (t RegistryTLS) RootCAs() (*x509.CertPool, error) {
	if len(t.Roots) == 0 {
		return nil, nil
	}
	return appendPEM(x509.NewCertPool(), t.Roots)
}

// imageTable is [image] of cdh.toml.
type imageTable struct {
	PolicyURI        string               `toml:"image_security_policy_uri"`
	Policy           string               `toml:"image_security_policy"`
	ExtraRoots       []string             `toml:"extra_root_certificates"`
	RegistryConfig   *registry.Registries `toml:"registry_config"` // the keys of registries.conf (14.5)
	RegistryURI      string               `toml:"registry_configuration_uri"`
	CredentialsURI   string               `toml:"authenticated_registry_credentials_uri"`
	SigstoreConfig   any                  `toml:"sigstore_config"`
	SigstoreURI      string               `toml:"sigstore_config_uri"`
	Proxy            proxyTable           `toml:"image_pull_proxy"`
	SkipProxy        string               `toml:"skip_proxy_ips"` // the older name of no_proxy
	WorkDir          string               `toml:"work_dir"`
	ConcurrentLayers int                  `toml:"max_concurrent_layer_downloads_per_image"`
}

type proxyTable struct {
	HTTPS string `toml:"https_proxy"`
	HTTP  string `toml:"http_proxy"`
	No    string `toml:"no_proxy"`
}

// UnmarshalText reads the older form: one proxy for everything.
func (t *proxyTable) UnmarshalText(text []byte) error {
	t.HTTPS, t.HTTP = string(text), string(text)
	return nil
}

type registryTLSTable struct {
	Host           string `toml:"host"`
	Roots          string `toml:"root_certificates"`
	CertificateURI string `toml:"client_certificate_uri"`
}

// joinImage reads [image]; without that table the command line counts (14.2).
func joinImage(cmd commandLine, docs documents) (Image, error) {
	i := cmd.image
	if docs.cdh != nil && docs.cdh.Image != nil {
		var err error
		if i, err = docs.cdh.Image.image(); err != nil {
			return i, err
		}
	}
	if docs.cdh != nil {
		i.KeyURIs = docs.cdh.Vouchsafe.ImageKeys
		var err error
		if i.ImageStore, err = docs.cdh.Vouchsafe.imageStore(); err != nil {
			return i, err
		}
		for _, t := range docs.cdh.Vouchsafe.RegistryTLS {
			i.RegistryTLS = append(i.RegistryTLS, RegistryTLS{Host: t.Host, Roots: joinPEM([]string{t.Roots}), CertificateURI: t.CertificateURI})
		}
	}
	return i, i.validate()
}

func (t *imageTable) image() (i Image, err error) {
	i = Image{
		PolicyURI: t.PolicyURI, LookasideURI: t.SigstoreURI, ExtraRoots: joinPEM(t.ExtraRoots),
		Registries: t.RegistryConfig, AuthURI: t.CredentialsURI,
		Proxy:   registry.Proxy{HTTPS: t.Proxy.HTTPS, HTTP: t.Proxy.HTTP, No: t.Proxy.No},
		WorkDir: t.WorkDir, ParallelLayers: t.ConcurrentLayers,
	}
	if i.Proxy.No == "" {
		i.Proxy.No = t.SkipProxy
	}
	if t.Policy != "" {
		i.PolicyInline = []byte(t.Policy)
	}
	if i.Registries == nil {
		i.RegistriesURI = t.RegistryURI
	}
	if i.LookasideInline, err = lookaside(t.SigstoreConfig); err != nil {
		return i, fmt.Errorf("image.sigstore_config: %w", err)
	}
	return i, nil
}

// validate finds what is wrong before the first image is asked for, when it is
// told to whoever starts the guest.
func (i Image) validate() error {
	if _, err := i.RootCAs(); err != nil {
		return fmt.Errorf("image.extra_root_certificates: %w", err)
	}
	if i.ParallelLayers < 0 || i.ParallelLayers > maxParallelLayers {
		return fmt.Errorf("image.max_concurrent_layer_downloads_per_image is %d, want at most %d", i.ParallelLayers, maxParallelLayers)
	}
	if i.WorkDir != "" && !filepath.IsAbs(i.WorkDir) {
		return fmt.Errorf("image.work_dir %q is not absolute", i.WorkDir)
	}
	if len(i.KeyURIs) > maxImageKeys || slices.Contains(i.KeyURIs, "") {
		return fmt.Errorf("vouchsafe.image_keys: at most %d locations, and none that is empty", maxImageKeys)
	}
	for _, uri := range append([]string{i.PolicyURI, i.LookasideURI, i.RegistriesURI, i.AuthURI}, i.KeyURIs...) {
		if err := checkLocation(uri); err != nil {
			return err
		}
	}
	tls := map[string]registry.HostTLS{}
	for n, t := range i.RegistryTLS {
		roots, err := t.RootCAs()
		if err == nil {
			err = checkLocation(t.CertificateURI)
		}
		if _, twice := tls[t.Host]; err == nil && (t.Host == "" || twice) {
			err = errors.New("a host is needed, and only once")
		}
		if err != nil {
			return fmt.Errorf("vouchsafe.registry_tls[%d]: %w", n, err)
		}
		tls[t.Host] = registry.HostTLS{RootCAs: roots}
	}
	_, err := registry.NewClient(registry.Config{Registries: i.Registries, Proxy: i.Proxy, TLS: tls})
	return err
}

func checkLocation(uri string) error {
	scheme, _, found := strings.Cut(uri, "://")
	switch {
	case uri == "", found && (scheme == "kbs" || scheme == "file" || strings.HasPrefix(scheme, "kbs+")), !found && filepath.IsAbs(uri):
		return nil
	}
	return fmt.Errorf("location %.80q: want kbs://, file:// or an absolute path", uri)
}
