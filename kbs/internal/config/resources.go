package config

import (
	"fmt"
	"regexp"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
)

// Types of back ends.
const (
	BackendBuiltin = "builtin"  // in the broker's own store
	BackendVaultKV = "vault_kv" // the KV engine, version 2, of a Vault or an OpenBao
	BackendPKCS11  = "pkcs11"   // objects of a PKCS#11 token
)

// Resources settings of the built-in back end.
type Resources struct {
	// KeepVersions is how many values of a resource are kept, the current one
	// included.
	KeepVersions int `toml:"keep_versions"`
}

// ResourceBackend mounts a back end. Where none is mounted at the root, the
// built-in one is.
type ResourceBackend struct {
	Name string `toml:"name"`
	// Prefix of the paths that it serves: "" is all, else repo/ or repo/type/.
	// Of several that match, the longest one decides.
	Prefix   string `toml:"prefix"`
	Type     string `toml:"type"` // "builtin", "vault_kv" or "pkcs11"
	ReadOnly bool   `toml:"read_only,omitempty"`
	// Tenant is who has the back end; "" is the tenant "default". What is not
	// the broker's own store cannot keep tenants apart, so no other has it.
	Tenant string `toml:"tenant,omitempty"`
	// Mount and Field are for "vault_kv": where the engine is, and the member
	// of a secret that holds the value ("value" if it is left out).
	Mount string `toml:"mount,omitempty"`
	Field string `toml:"field,omitempty"`
	Vault *Vault `toml:"vault,omitempty"`
	// Socket is for "pkcs11": where the process kbs-pkcs11 serves the objects of
	// a token.
	Socket string `toml:"socket,omitempty" kind:"path"`
}

// insecure lists the settings that weaken a back end.
func (b ResourceBackend) insecure(key string) []string {
	if b.Vault == nil {
		return nil
	}
	return b.Vault.insecure(key + ".vault")
}

func defaultResources() Resources { return Resources{KeepVersions: resource.Keep} }

var vaultMount = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)

var backendName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?$`)

func validateResources(r Resources, backends []ResourceBackend) []error {
	var all []error
	bad := func(key, format string, args ...any) {
		all = append(all, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if r.KeepVersions < 1 || r.KeepVersions > 100 {
		bad("resources.keep_versions", "must be from 1 to 100, is %d", r.KeepVersions)
	}
	names, prefixes := map[string]bool{}, map[string]bool{}
	for i, b := range backends {
		key := fmt.Sprintf("resource_backends[%d]", i)
		if !backendName.MatchString(b.Name) || names[b.Name] {
			bad(key+".name", "%q needs to be a unique name of a-z, 0-9, - and _", b.Name)
		}
		if err := resource.CheckPrefix(b.Prefix); err != nil || prefixes[b.Prefix] {
			bad(key+".prefix", "%q must be empty, repo/ or repo/type/, and no other's", b.Prefix)
		}
		all = append(all, b.validate(key)...)
		names[b.Name], prefixes[b.Prefix] = true, true
	}
	return all
}

// validate checks what depends on the type.
func (b ResourceBackend) validate(key string) []error {
	bad := func(at, format string, args ...any) []error {
		return []error{fmt.Errorf("%s%s: %s", key, at, fmt.Sprintf(format, args...))}
	}
	inVault := b.Vault != nil || b.Mount != "" || b.Field != ""
	switch {
	case b.Type != BackendBuiltin && b.Type != BackendVaultKV && b.Type != BackendPKCS11:
		return bad(".type", "must be %q, %q or %q, is %q", BackendBuiltin, BackendVaultKV, BackendPKCS11, b.Type)
	case b.Type == BackendBuiltin && (inVault || b.Socket != "" || b.Tenant != ""):
		return bad("", "mount, field, tenant, vault and socket do not belong to type %q", b.Type)
	case b.Type == BackendPKCS11 && inVault:
		return bad("", "mount, field and vault do not belong to type %q", b.Type)
	case b.Type == BackendVaultKV && b.Socket != "":
		return bad(".socket", "does not belong to type %q", b.Type)
	case b.Type == BackendPKCS11 && b.Socket == "":
		return bad(".socket", "the socket of kbs-pkcs11 is needed")
	case b.Type == BackendVaultKV && b.Vault == nil:
		return bad(".vault", "is needed for type %q", b.Type)
	case b.Type == BackendVaultKV && !vaultMount.MatchString(b.Mount):
		return bad(".mount", "%q is not where an engine is mounted, for example \"secret\"", b.Mount)
	case b.Type == BackendVaultKV:
		return b.Vault.validate(key + ".vault")
	}
	return nil
}
