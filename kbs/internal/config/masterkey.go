package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// Kinds of holders of a master key.
const (
	MasterKeyFile   = "file"
	MasterKeyVault  = "vault_transit"
	MasterKeyPKCS11 = "pkcs11"
)

// MasterKey says who holds the key that all else is sealed under.
type MasterKey struct {
	KeyHolder
	// Former are holders of keys that something in the store may still be
	// under: what the master key is being moved away from.
	Former []KeyHolder `toml:"former"`
	// CacheTTLSeconds is how long the broker remembers a data key that a remote
	// holder opened; 0 asks for every release. It does not concern a file.
	CacheTTLSeconds int `toml:"cache_ttl_seconds"`
	// CacheSize bounds how many data keys are remembered.
	CacheSize int `toml:"cache_size"`
}

// KeyHolder is one place where master keys are.
type KeyHolder struct {
	Type string `toml:"type"` // "file", "vault_transit" or "pkcs11"
	// Path of the key file, by default keys/master.key in the state directory.
	// Keys that follow it by rotation lie beside it.
	Path string `toml:"path,omitempty" kind:"path"`
	// Mount and Key name the key of a Vault's or OpenBao's transit engine.
	Mount string `toml:"mount,omitempty"`
	Key   string `toml:"key,omitempty"`
	Vault *Vault `toml:"vault,omitempty"`
	// Socket is where the process kbs-pkcs11 serves the keys of a token.
	Socket string `toml:"socket,omitempty" kind:"path"`
}

func defaultMasterKey() MasterKey {
	return MasterKey{KeyHolder: KeyHolder{Type: MasterKeyFile}, Former: []KeyHolder{}, CacheTTLSeconds: 60, CacheSize: 4096}
}

// CacheTTL is how long an opened data key is remembered.
func (m MasterKey) CacheTTL() time.Duration { return time.Duration(m.CacheTTLSeconds) * time.Second }

// FilePath is where the first key of a file holder lies.
func (h KeyHolder) FilePath(stateDir string) string {
	if h.Path == "" {
		return filepath.Join(stateDir, "keys", "master.key")
	}
	return h.Path
}

func (m MasterKey) insecure() []string {
	out := m.KeyHolder.insecure("master_key")
	for i, h := range m.Former {
		out = append(out, h.insecure(fmt.Sprintf("master_key.former[%d]", i))...)
	}
	return out
}

func (h KeyHolder) insecure(key string) []string {
	if h.Vault == nil {
		return nil
	}
	return h.Vault.insecure(key + ".vault")
}

func (m MasterKey) validate() []error {
	all := m.KeyHolder.validate("master_key")
	for i, h := range m.Former {
		all = append(all, h.validate(fmt.Sprintf("master_key.former[%d]", i))...)
	}
	if m.CacheTTLSeconds < 0 || m.CacheTTLSeconds > 3600 {
		all = append(all, fmt.Errorf("master_key.cache_ttl_seconds: must be from 0 to 3600, is %d", m.CacheTTLSeconds))
	}
	if m.CacheSize < 1 || m.CacheSize > 1<<20 {
		all = append(all, fmt.Errorf("master_key.cache_size: must be from 1 to %d, is %d", 1<<20, m.CacheSize))
	}
	return all
}

// What becomes part of a master key's id, which has at most 64 bytes.
var (
	transitMount = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,19}$`)
	transitKey   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,23}$`)
)

func (h KeyHolder) validate(key string) []error {
	var all []error
	for _, s := range []struct {
		name, of string
		set      bool
	}{
		{"path", MasterKeyFile, h.Path != ""},
		{"mount", MasterKeyVault, h.Mount != ""},
		{"key", MasterKeyVault, h.Key != ""},
		{"vault", MasterKeyVault, h.Vault != nil},
		{"socket", MasterKeyPKCS11, h.Socket != ""},
	} {
		if s.set && s.of != h.Type {
			all = append(all, fmt.Errorf("%s: %s belongs to the type %q", key, s.name, s.of))
		}
	}
	switch h.Type {
	case MasterKeyFile:
	case MasterKeyVault:
		all = append(all, h.validateVault(key)...)
	case MasterKeyPKCS11:
		if h.Socket == "" {
			all = append(all, fmt.Errorf("%s.socket: the socket of kbs-pkcs11 is needed", key))
		}
	default:
		return []error{fmt.Errorf("%s.type: must be %q, %q or %q, is %q", key, MasterKeyFile, MasterKeyVault, MasterKeyPKCS11, h.Type)}
	}
	return all
}

func (h KeyHolder) validateVault(key string) []error {
	var all []error
	if h.Mount != "" && !transitMount.MatchString(h.Mount) {
		all = append(all, fmt.Errorf("%s.mount: %q is not the name of a mount of at most 20 letters, digits, dots, dashes", key, h.Mount))
	}
	if !transitKey.MatchString(h.Key) {
		all = append(all, fmt.Errorf("%s.key: %q is not the name of a key of at most 24 letters, digits, dots, dashes", key, h.Key))
	}
	if h.Vault == nil {
		return append(all, fmt.Errorf("%s.vault: a table that says how to reach it is needed", key))
	}
	return append(all, h.Vault.validate(key+".vault")...)
}
