// Package config reads the broker's one configuration file.
//
// Keys are those of the field's brokers where the meaning is the same
// (kbs-protocol 13.1). Reading is strict: an unknown or mistyped key is an
// error that names its line, because a misspelt security setting must not be
// silently ignored. Every setting that weakens the broker begins with
// "insecure_".
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// maxSize limits the configuration file, in bytes.
const maxSize = 1 << 20

// Config is the whole configuration, with every default filled in.
type Config struct {
	// StateDir holds the store and the keys.
	StateDir           string             `toml:"state_dir"`
	HTTPServer         HTTPServer         `toml:"http_server"`
	Admin              Admin              `toml:"admin"`
	AttestationService AttestationService `toml:"attestation_service"`
	Verifier           Verifier           `toml:"verifier"`
	MasterKey          MasterKey          `toml:"master_key"`
}

// HTTPServer says where and how the broker listens.
type HTTPServer struct {
	Sockets      []string `toml:"sockets"`       // guests: /kbs/v0, /v1/guest, health
	AdminSockets []string `toml:"admin_sockets"` // administrators: /v1, /kbs/v0, health
	InsecureHTTP bool     `toml:"insecure_http"` // no TLS at all
	PrivateKey   string   `toml:"private_key"`   // PEM; both or neither
	Certificate  string   `toml:"certificate"`   // PEM
	// PayloadRequestSize limits a request body, in MiB.
	PayloadRequestSize int `toml:"payload_request_size"`
}

// Admin settings.
type Admin struct {
	// TokenLifetimeHours is that of the token written at the first start.
	TokenLifetimeHours int `toml:"token_lifetime_hours"`
}

// Verifier has one table for each platform.
type Verifier struct {
	SNP SNP `toml:"snp"`
}

// SNP settings of the AMD SEV-SNP verifier.
type SNP struct {
	Enabled bool `toml:"enabled"`
	// InsecureSimulatedRoots are trusted beside AMD's roots. Tokens that rest
	// on one say so, and the default policies refuse them.
	InsecureSimulatedRoots []SimulatedRoot `toml:"insecure_simulated_roots"`
	InsecureNoRevocation   bool            `toml:"insecure_no_revocation"`
	// RevocationLists are AMD's CRLs by processor generation (Milan, Genoa,
	// Turin), each the path of a file as AMD serves it.
	RevocationLists map[string]string `toml:"revocation_lists"`
}

// SimulatedRoot names a root bundle (PEM) made by a simulated vendor.
type SimulatedRoot struct {
	Name string `toml:"name"`
	Path string `toml:"path"`
}

// Default returns the configuration of a broker that was told nothing:
// loopback only, TLS with a certificate of its own.
func Default(getenv func(string) string) Config {
	dir := getenv("STATE_DIRECTORY") // systemd; it may list several
	if first, _, _ := strings.Cut(dir, ":"); first != "" {
		dir = first
	} else {
		dir = "state"
	}
	return Config{
		StateDir: dir,
		HTTPServer: HTTPServer{
			Sockets:            []string{"127.0.0.1:8080"},
			AdminSockets:       []string{"127.0.0.1:8081"},
			PayloadRequestSize: 2,
		},
		Admin:              Admin{TokenLifetimeHours: 12},
		AttestationService: defaultAttestationService(),
		Verifier:           Verifier{SNP: SNP{Enabled: true, InsecureSimulatedRoots: []SimulatedRoot{}, RevocationLists: map[string]string{}}},
		MasterKey:          defaultMasterKey(),
	}
}

// Load reads a file over the defaults and validates the result. An empty path
// is the defaults alone. Relative paths in the file are relative to the file.
func Load(path string, getenv func(string) string) (Config, error) {
	c := Default(getenv)
	if path == "" {
		return c, c.Validate()
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	fallback := c.StateDir // relative to where the broker was started
	c.StateDir = ""
	if err := Parse(raw, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	c.resolve(filepath.Dir(path))
	c.StateDir = cmp.Or(c.StateDir, fallback)
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse reads TOML over the values in c.
func Parse(raw []byte, c *Config) error {
	if len(raw) > maxSize {
		return fmt.Errorf("configuration is larger than %d bytes", maxSize)
	}
	err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(c)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var all []error
		for i := range unknown.Errors {
			all = append(all, place(&unknown.Errors[i], "unknown key"))
		}
		return errors.Join(all...)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		return place(wrong, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return err
}

func place(e *toml.DecodeError, what string) error {
	row, _ := e.Position()
	if key := strings.Join(e.Key(), "."); key != "" {
		return fmt.Errorf("line %d: %s: %s", row, key, what)
	}
	return fmt.Errorf("line %d: %s", row, what)
}

func (c *Config) resolve(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&c.StateDir)
	abs(&c.HTTPServer.PrivateKey)
	abs(&c.HTTPServer.Certificate)
	c.MasterKey.resolve(abs)
	c.AttestationService.AttestationTokenBroker.resolve(abs)
	for name, path := range c.Verifier.SNP.RevocationLists {
		abs(&path)
		c.Verifier.SNP.RevocationLists[name] = path
	}
	for i := range c.Verifier.SNP.InsecureSimulatedRoots {
		abs(&c.Verifier.SNP.InsecureSimulatedRoots[i].Path)
	}
}

// Dump writes the configuration as TOML. It holds no secrets: keys are named
// by file only.
func (c Config) Dump() ([]byte, error) { return toml.Marshal(c) }

// AdminTokenLifetime is that of the token written at the first start.
func (c Config) AdminTokenLifetime() time.Duration {
	return time.Duration(c.Admin.TokenLifetimeHours) * time.Hour
}

// MaxBody limits a request body, in bytes.
func (c Config) MaxBody() int64 { return int64(c.HTTPServer.PayloadRequestSize) << 20 }

// Insecure lists the settings in force that weaken the broker.
func (c Config) Insecure() []string {
	var out []string
	if c.HTTPServer.InsecureHTTP {
		out = append(out, "http_server.insecure_http")
	}
	for _, r := range c.Verifier.SNP.InsecureSimulatedRoots {
		out = append(out, "verifier.snp.insecure_simulated_roots: "+r.Name)
	}
	if c.Verifier.SNP.InsecureNoRevocation {
		out = append(out, "verifier.snp.insecure_no_revocation")
	}
	out = append(out, c.MasterKey.insecure()...)
	return out
}

var rootName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Validate reports all that is wrong, not only the first.
func (c Config) Validate() error {
	var all []error
	bad := func(key, format string, args ...any) {
		all = append(all, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	between := func(key string, v, low, high int) {
		if v < low || v > high {
			bad(key, "must be from %d to %d, is %d", low, high, v)
		}
	}
	h := c.HTTPServer
	if c.StateDir == "" {
		bad("state_dir", "must not be empty")
	}
	if len(h.Sockets) == 0 {
		bad("http_server.sockets", "at least one is needed")
	}
	for key, list := range map[string][]string{"http_server.sockets": h.Sockets, "http_server.admin_sockets": h.AdminSockets} {
		for _, s := range list {
			if _, _, err := net.SplitHostPort(s); err != nil {
				bad(key, "%q is not host:port", s)
			}
		}
	}
	if (h.PrivateKey == "") != (h.Certificate == "") {
		bad("http_server", "private_key and certificate must be given together")
	}
	if h.InsecureHTTP && h.PrivateKey != "" {
		bad("http_server", "insecure_http and private_key exclude each other")
	}
	between("http_server.payload_request_size", h.PayloadRequestSize, 1, 64)
	between("admin.token_lifetime_hours", c.Admin.TokenLifetimeHours, 1, 720)
	between("attestation_service.timeout", c.AttestationService.Timeout, 1, 60)
	all = append(all, c.AttestationService.AttestationTokenBroker.validate()...)
	all = append(all, c.Verifier.SNP.validate()...)
	all = append(all, c.MasterKey.validate()...)
	return errors.Join(all...)
}

func (s SNP) validate() []error {
	var all []error
	seen := map[string]bool{}
	for _, r := range s.InsecureSimulatedRoots {
		if !rootName.MatchString(r.Name) || r.Path == "" || seen[r.Name] {
			all = append(all, fmt.Errorf("verifier.snp.insecure_simulated_roots: %q needs a unique name of [A-Za-z0-9_.-] and a path", r.Name))
		}
		seen[r.Name] = true
	}
	if !s.Enabled && (len(s.InsecureSimulatedRoots) > 0 || s.InsecureNoRevocation) {
		all = append(all, errors.New("verifier.snp: settings are given, but enabled is false"))
	}
	return all
}
