package ctl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/vouchsafe-cc/vouchsafe/given"
)

const defaultServer = "https://127.0.0.1:8081"

// configFile is config.yaml: which brokers there are, and which is meant when
// nothing else says so.
type configFile struct {
	CurrentContext string          `yaml:"current-context,omitempty"`
	Contexts       []brokerContext `yaml:"contexts,omitempty"`

	path string
}

// brokerContext is one broker. Relative paths start at the config file's
// directory.
type brokerContext struct {
	Name      string `yaml:"name" json:"name"`
	Server    string `yaml:"server,omitempty" json:"server,omitempty"`
	CA        string `yaml:"ca,omitempty" json:"ca,omitempty"`
	TokenFile string `yaml:"token-file,omitempty" json:"token-file,omitempty"`
	LogKey    string `yaml:"log-key,omitempty" json:"log-key,omitempty"`
	Tenant    string `yaml:"tenant,omitempty" json:"tenant,omitempty"`

	OIDC *oidcContext `yaml:"oidc,omitempty" json:"oidc,omitempty"`
	Exec *execContext `yaml:"exec,omitempty" json:"exec,omitempty"`
}

// configPath is $XDG_CONFIG_HOME/kbs/config.yaml, or ~/.config/kbs/config.yaml.
func configPath(env func(string) string) string {
	return filepath.Join(xdg(env, "XDG_CONFIG_HOME", ".config"), "kbs", "config.yaml")
}

// xdg follows the XDG base directory specification: a relative value counts as
// not set.
func xdg(env func(string) string, name, inHome string) string {
	if d := env(name); filepath.IsAbs(d) {
		return d
	}
	return filepath.Join(env("HOME"), inHome)
}

const maxConfig = 1 << 20 // bytes

// loadConfig reads the config file; a missing one is an empty one.
func loadConfig(path string) (*configFile, error) {
	cfg := &configFile{path: path}
	b, err := given.File(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return nil, usagef("%w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(cfg); err != nil && !errors.Is(err, io.EOF) {
		return nil, usagef("%s: %s", path, goTypes.ReplaceAllString(err.Error(), "unknown key $1"))
	}
	seen := map[string]bool{}
	for _, x := range cfg.Contexts {
		if x.Name == "" || seen[x.Name] {
			return nil, usagef("%s: every context needs a name of its own (%q)", path, x.Name)
		}
		seen[x.Name] = true
	}
	return cfg, nil
}

// save replaces the file in one step, so that a killed kbsctl leaves the old one.
func (f *configFile) save() error {
	b, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	return replaceFile(f.path, b)
}

func (f *configFile) find(name string) (brokerContext, bool) {
	for _, x := range f.Contexts {
		if x.Name == name {
			return x, true
		}
	}
	return brokerContext{}, false
}

// set adds the context or changes the members of it that are not empty.
func (f *configFile) set(x brokerContext) (created bool) {
	for i := range f.Contexts {
		if old := &f.Contexts[i]; old.Name == x.Name {
			for _, m := range []struct{ to, from *string }{
				{&old.Server, &x.Server}, {&old.CA, &x.CA}, {&old.TokenFile, &x.TokenFile}, {&old.LogKey, &x.LogKey},
				{&old.Tenant, &x.Tenant},
			} {
				if *m.from != "" {
					*m.to = *m.from
				}
			}
			return false
		}
	}
	f.Contexts = append(f.Contexts, x)
	return true
}

func (f *configFile) abs(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.path), path)
}

// settings is what one run uses, each member from the first of flag,
// environment, context and default that has it.
type settings struct {
	Server, CA, TokenFile, LogKey string
	Tenant, Context               string
	Exec                          *execContext // where there is no token file
}

func (c *cli) settings() (settings, error) {
	cfg, err := loadConfig(configPath(c.env))
	if err != nil {
		return settings{}, err
	}
	name := firstOf(c.flags.context, c.env("KBS_CONTEXT"), cfg.CurrentContext)
	x, found := cfg.find(name)
	if name != "" && !found {
		return settings{}, noContext(name, cfg)
	}
	if x.Exec != nil {
		if err := cfg.private(); err != nil {
			return settings{}, err
		}
	}
	return settings{
		Server:    firstOf(c.flags.server, c.env("KBS_SERVER"), x.Server, defaultServer),
		CA:        firstOf(c.flags.ca, c.env("KBS_CA"), cfg.abs(x.CA)),
		TokenFile: firstOf(c.flags.tokenFile, c.env("KBS_TOKEN_FILE"), cfg.abs(x.TokenFile)),
		LogKey:    cfg.abs(x.LogKey),
		Tenant:    firstOf(c.flags.tenant, c.env("KBS_TENANT"), x.Tenant),
		Context:   name,
		Exec:      x.Exec,
	}, nil
}

func noContext(name string, cfg *configFile) error {
	return usagef("there is no context %q in %s", name, cfg.path).hint("kbsctl config get-contexts")
}

// chosen is the context that is meant. With orNew there may be none yet: then
// it is a new one, for the broker that flags and environment name.
func (f *configFile) chosen(c *cli, orNew bool) (brokerContext, error) {
	name := firstOf(c.flags.context, c.env("KBS_CONTEXT"), f.CurrentContext)
	x, found := f.find(name)
	switch {
	case found:
		return x, nil
	case !orNew && name == "":
		return x, usagef("there is no context").hint("kbsctl config set-context NAME")
	case !orNew:
		return x, noContext(name, f)
	}
	x = brokerContext{Name: firstOf(name, "default"), Server: firstOf(c.flags.server, c.env("KBS_SERVER")), Tenant: firstOf(c.flags.tenant, c.env("KBS_TENANT"))}
	if ca := firstOf(c.flags.ca, c.env("KBS_CA")); ca != "" {
		abs, err := filepath.Abs(ca)
		if err != nil {
			return x, err
		}
		x.CA = abs
	}
	return x, nil
}

// replace puts the whole context in its place, which is the current one if
// there was none.
func (f *configFile) replace(x brokerContext) {
	if f.CurrentContext == "" {
		f.CurrentContext = x.Name
	}
	for i := range f.Contexts {
		if f.Contexts[i].Name == x.Name {
			f.Contexts[i] = x
			return
		}
	}
	f.Contexts = append(f.Contexts, x)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func readCA(path string) (*x509.CertPool, error) {
	b, err := given.File(path, maxConfig)
	if err != nil {
		return nil, usagef("CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, usagef("CA file %s: holds no PEM certificate", path)
	}
	return pool, nil
}

// replaceFile writes a file that only its owner may read, in one step.
func replaceFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".kbsctl-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
