package kmstest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
)

// Vault is a HashiCorp Vault that knows callers by a token. Its key is "kbs",
// whatever name [Service.Key] is asked for but Denied.
func Vault(t testing.TB) *Service {
	v := vaulttest.Start(t)
	v.PutKV("apps/app", map[string]any{"value": Value, "other": "another"})
	s := &Service{
		Server: v.Server, Provider: "vault",
		Resources: map[string]string{CredentialURI: v.Issue() + "\n"},
		Secret:    func(name string) string { return "apps/" + name },
		Key: func(name string) string {
			if name == Denied {
				return Denied
			}
			return "kbs"
		},
	}
	s.Settings = map[string]any{"endpoint_url": v.URL, "root_certificates": s.Roots(), "credential": CredentialURI}
	v.Mood = func(w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		s.calls++
		mood := s.mood
		if strings.HasSuffix(r.URL.Path, "/lookup-self") || strings.HasSuffix(r.URL.Path, "/login") {
			s.logins++
		}
		s.mu.Unlock()
		if mood != nil && mood(w, r) {
			return true
		}
		if strings.HasSuffix(r.URL.Path, "/"+Denied) {
			vaulttest.Refuse(w, http.StatusForbidden, "permission denied")
			return true
		}
		return false
	}
	return s
}

// Roles are the ways to log in to a Vault beside a token: settings, and the
// credential that each wants.
type Roles struct {
	Settings   map[string]any
	Credential string
}

// VaultRoles is a Vault and the ways to log in to it.
func VaultRoles(t testing.TB) (*Service, map[string]Roles) {
	v := vaulttest.Start(t)
	v.PutKV("apps/app", map[string]any{"value": Value})
	s := &Service{Server: v.Server, Provider: "vault", Secret: func(name string) string { return "apps/" + name }}
	s.Settings = map[string]any{"endpoint_url": v.URL, "root_certificates": s.Roots(), "credential": CredentialURI}
	return s, map[string]Roles{
		"approle": {map[string]any{"auth": "approle", "role_id": v.RoleID}, v.SecretID},
		"jwt":     {map[string]any{"auth": "jwt", "role": v.KubeRole, "auth_mount": "kubernetes"}, v.JWT},
	}
}
