package config

import (
	"fmt"
	"net/url"
	"time"
)

// Ways to log in to a Vault.
const (
	VaultTokenFile  = "token_file"
	VaultAppRole    = "approle"
	VaultKubernetes = "kubernetes"
)

// Vault says how to reach a HashiCorp Vault or an OpenBao. Secrets are named
// by file.
type Vault struct {
	Address   string `toml:"address"`             // https://host:port
	Namespace string `toml:"namespace,omitempty"` // of the enterprise editions
	// CAFile (PEM) verifies the server's certificate; "" means the system's
	// roots.
	CAFile string `toml:"ca_file,omitempty" kind:"path" file:"certificates"`
	// InsecureHTTP allows an http address, which shows every key to the network.
	InsecureHTTP   bool `toml:"insecure_http,omitempty"`
	TimeoutSeconds int  `toml:"timeout_seconds,omitempty"` // of one attempt; 0 is 5

	Auth      string `toml:"auth"`                 // "token_file", "approle" or "kubernetes"
	AuthMount string `toml:"auth_mount,omitempty"` // "" is the method's usual one
	TokenFile string `toml:"token_file,omitempty" kind:"path" file:"some"`
	// RoleID and SecretIDFile are an AppRole's.
	RoleID       string `toml:"role_id,omitempty"`
	SecretIDFile string `toml:"secret_id_file,omitempty" kind:"path" file:"some"`
	// Role and JWTFile are those of the Kubernetes method; the file is by
	// default the pod's service account token.
	Role    string `toml:"role,omitempty"`
	JWTFile string `toml:"jwt_file,omitempty" kind:"path" file:"some"`
}

// Timeout of one attempt.
func (v Vault) Timeout() time.Duration {
	if v.TimeoutSeconds == 0 {
		return 5 * time.Second
	}
	return time.Duration(v.TimeoutSeconds) * time.Second
}

func (v Vault) insecure(key string) []string {
	if v.InsecureHTTP {
		return []string{key + ".insecure_http"}
	}
	return nil
}

func (v Vault) validate(key string) []error {
	var all []error
	bad := func(name, format string, args ...any) {
		all = append(all, fmt.Errorf("%s.%s: %s", key, name, fmt.Sprintf(format, args...)))
	}
	u, err := url.Parse(v.Address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		bad("address", "must be https://HOST[:PORT]")
	case u.Scheme == "http" && !v.InsecureHTTP:
		bad("address", "plain http would show every key to the network; insecure_http allows it")
	case u.Scheme != "https" && u.Scheme != "http":
		bad("address", "must be https://HOST[:PORT]")
	}
	if v.TimeoutSeconds < 0 || v.TimeoutSeconds > 60 {
		bad("timeout_seconds", "must be from 0 to 60, is %d", v.TimeoutSeconds)
	}
	needs := map[string]map[string]string{
		VaultTokenFile:  {"token_file": v.TokenFile},
		VaultAppRole:    {"role_id": v.RoleID, "secret_id_file": v.SecretIDFile},
		VaultKubernetes: {"role": v.Role},
	}
	if _, ok := needs[v.Auth]; !ok {
		bad("auth", "must be %q, %q or %q, is %q", VaultTokenFile, VaultAppRole, VaultKubernetes, v.Auth)
		return all
	}
	needs[VaultKubernetes]["jwt_file"] = v.JWTFile
	for method, members := range needs {
		for name, value := range members {
			switch {
			case method == v.Auth && value == "" && name != "jwt_file":
				bad(name, "is needed for auth = %q", v.Auth)
			case method != v.Auth && value != "":
				bad(name, "belongs to auth = %q", method)
			}
		}
	}
	return all
}
