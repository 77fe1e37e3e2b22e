package ctl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/secret"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

// registryFlags say how registries are reached.
type registryFlags struct {
	conf      string
	auth      string
	ca        string
	certs     string
	tls       map[string]string
	plainHTTP []string
}

func (f *registryFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.conf, "registries-conf", "", "registries.conf `FILE` (version 2): mirrors, rewrites, blocked registries (default: none)")
	s.StringVar(&f.auth, "authfile", "", "docker auth.json `FILE` (env REGISTRY_AUTH_FILE; default: that of docker or podman)")
	s.StringVar(&f.auth, "registry-auth", "", "the older name of --authfile")
	_ = s.MarkHidden("registry-auth")
	s.StringVar(&f.ca, "registry-ca", "", "PEM `FILE` of a CA that registries' certificates may end in, beside the system's")
	s.StringVar(&f.certs, "certs-dir", "", "`DIRECTORY` with a directory for each registry (HOST or HOST:PORT): CAs in *.crt, a client certificate in *.cert with its *.key")
	s.StringToStringVar(&f.tls, "registry-tls", nil, "`HOST=DIR`: the same for one registry (repeatable)")
	s.Lookup("registry-tls").DefValue = ""
	s.StringSliceVar(&f.plainHTTP, "insecure-plain-http", nil,
		"speak plain HTTP to these registry `HOSTS` (host:port); anyone on the way can read and change what passes")
}

// platformFlag chooses among the images of an index.
type platformFlag struct{ text string }

func (f *platformFlag) add(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&f.text, "platform", "", "`OS/ARCH[/VARIANT]` of a multi-platform image (default: "+what+")")
}

// read returns the zero platform without the flag.
func (f *platformFlag) read() (registry.Platform, error) {
	if f.text == "" {
		return registry.Platform{}, nil
	}
	parts := strings.Split(f.text, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return registry.Platform{}, usagef("--platform is OS/ARCH or OS/ARCH/VARIANT, not %q", f.text)
	}
	p := registry.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// native is read with this machine's platform as the default.
func (f *platformFlag) native() (registry.Platform, error) {
	p, err := f.read()
	if err == nil && p == (registry.Platform{}) {
		p = registry.Native()
	}
	return p, err
}

func (c *cli) registry(f registryFlags) (registry.Config, error) {
	cfg := registry.Config{
		InsecureHTTPHosts: f.plainHTTP, UserAgent: "kbsctl/" + version.Here().Short(),
		ProxyFromEnvironment: true, Helper: registry.ExecHelper,
	}
	if len(f.plainHTTP) > 0 {
		c.warnf("WARNING: plain HTTP to %s: anyone on the way can read and change what passes", strings.Join(f.plainHTTP, ", "))
	}
	var err error
	if f.conf != "" {
		raw, err := given.File(f.conf, maxConfig)
		if err != nil {
			return cfg, usagef("%w", err)
		}
		if cfg.Registries, err = registry.ParseRegistries(raw); err != nil {
			return cfg, usagef("%s: %w", f.conf, err)
		}
	}
	if f.ca != "" {
		if cfg.RootCAs, err = registryRoots(f.ca); err != nil {
			return cfg, err
		}
	}
	if cfg.TLS, err = f.hosts(); err != nil {
		return cfg, err
	}
	cfg.Auth, err = c.registryAuth(f.auth)
	return cfg, err
}

// hosts reads the directories of registries that need something of their own.
func (f registryFlags) hosts() (map[string]registry.HostTLS, error) {
	dirs := map[string]string{}
	if f.certs != "" {
		entries, err := os.ReadDir(f.certs)
		if err != nil {
			return nil, usagef("--certs-dir: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				dirs[e.Name()] = filepath.Join(f.certs, e.Name())
			}
		}
	}
	for host, dir := range f.tls {
		dirs[host] = dir
	}
	all := map[string]registry.HostTLS{}
	for host, dir := range dirs {
		t, err := readHostTLS(dir)
		if err != nil {
			return nil, usagef("TLS of %s: %w", host, err)
		}
		all[host] = t
	}
	return all, nil
}

// readHostTLS reads a directory in the form that docker and podman share
// (containers-certs.d(5)).
func readHostTLS(dir string) (registry.HostTLS, error) {
	var t registry.HostTLS
	entries, err := os.ReadDir(dir)
	if err != nil {
		return t, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			if t.RootCAs == nil {
				t.RootCAs = x509.NewCertPool()
			}
			b, err := given.File(path, maxConfig)
			if err != nil {
				return t, err
			}
			if !t.RootCAs.AppendCertsFromPEM(b) {
				return t, errors.New(path + " holds no PEM certificate")
			}
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(path, key)
			if err != nil {
				return t, errors.New(path + " and " + key + " are no certificate with its key")
			}
			if t.Certificate != nil {
				return t, errors.New(dir + " holds two client certificates")
			}
			t.Certificate = &pair
		}
	}
	return t, nil
}

// registryRoots adds a private CA to the system's: one command may read from a
// public registry and write to a private one.
func registryRoots(file string) (*x509.CertPool, error) {
	b, err := given.File(file, maxConfig)
	if err != nil {
		return nil, usagef("registry CA: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, usagef("registry CA %s: holds no PEM certificate", file)
	}
	return pool, nil
}

// registryAuth reads the file that was named, or else the first of the usual
// ones that there is: podman's, then docker's.
func (c *cli) registryAuth(file string) (secret.Bytes, error) {
	if file != "" {
		b, err := given.File(file, maxConfig)
		if err != nil {
			return secret.Bytes{}, usagef("registry credentials: %w", err)
		}
		return secret.New(b), nil
	}
	var usual []string
	if f := c.env("REGISTRY_AUTH_FILE"); f != "" {
		usual = append(usual, f)
	}
	if d := c.env("XDG_RUNTIME_DIR"); d != "" {
		usual = append(usual, filepath.Join(d, "containers", "auth.json"))
	}
	docker := firstOf(c.env("DOCKER_CONFIG"), filepath.Join(c.env("HOME"), ".docker"))
	usual = append(usual, filepath.Join(docker, "config.json"))
	for _, f := range usual {
		b, err := given.File(f, maxConfig)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return secret.Bytes{}, usagef("registry credentials: %w", err)
		}
		return secret.New(b), nil
	}
	return secret.Bytes{}, nil
}
