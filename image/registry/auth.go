package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const maxAuthFile = 1 << 20 // bytes

// credentials is a parsed docker auth.json (guest-protocol 14.4). The entries
// stay in the form that go-containerregistry consumes.
type credentials struct {
	entries map[string]authn.AuthConfig
	store   string            // helper for every host that has no other
	helpers map[string]string // by host
	ask     Helper
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// parseAuth reads auth.json. Credential helpers cannot run in a guest, so
// without ask a file that names them is an error rather than silently anonymous.
func parseAuth(file secret.Bytes, ask Helper) (credentials, error) {
	c := credentials{entries: map[string]authn.AuthConfig{}, helpers: map[string]string{}, ask: ask}
	if file.Len() == 0 {
		return c, nil
	}
	if file.Len() > maxAuthFile {
		return c, fmt.Errorf("registry auth: %d bytes, at most %d are read", file.Len(), maxAuthFile)
	}
	var doc struct {
		Auths       map[string]authEntry `json:"auths"`
		CredsStore  string               `json:"credsStore"`
		CredHelpers map[string]string    `json:"credHelpers"`
	}
	if json.Unmarshal(file.Reveal(), &doc) != nil { // the error could quote the file
		return c, fmt.Errorf("registry auth: not a docker auth.json")
	}
	if ask == nil && (doc.CredsStore != "" || len(doc.CredHelpers) > 0) {
		return c, fmt.Errorf("registry auth: credential helpers cannot be asked here")
	}
	c.store = doc.CredsStore
	for key, helper := range doc.CredHelpers {
		c.helpers[normalKey(key)] = helper
	}
	for key, e := range doc.Auths {
		if e == (authEntry{}) && (c.store != "" || c.helpers[normalKey(key)] != "") {
			continue // docker's mark that the store has it
		}
		cfg, err := e.config()
		if err != nil {
			return c, fmt.Errorf("registry auth: entry %q: %w", key, err)
		}
		c.entries[normalKey(key)] = cfg
	}
	return c, nil
}

func (e authEntry) config() (authn.AuthConfig, error) {
	cfg := authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.Auth))
		if err != nil {
			return cfg, fmt.Errorf("auth is not base64")
		}
		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return cfg, fmt.Errorf("auth is not user:password")
		}
		cfg.Username, cfg.Password = user, strings.TrimRight(password, "\x00\r\n")
	}
	if cfg.Username == "" && cfg.IdentityToken == "" && cfg.RegistryToken == "" {
		return cfg, fmt.Errorf("holds no credential")
	}
	return cfg, nil
}

// normalKey drops the scheme and, for the old URL form, the path of a key:
// "https://index.docker.io/v1/" is docker.io.
func normalKey(key string) string {
	bare := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	if bare != key {
		bare, _, _ = strings.Cut(bare, "/")
	}
	host, path, namespaced := strings.Cut(strings.TrimSuffix(bare, "/"), "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = dockerHub
	}
	if host == dockerHub && (path == "v1" || path == "v2") {
		namespaced = false
	}
	if namespaced {
		return host + "/" + path
	}
	return host
}

// lookup finds the entry for the repository, then for its parent namespaces,
// then for the host, then the helper for the host; anonymous otherwise.
func (c credentials) lookup(r Reference) authn.Authenticator {
	for name := r.Name(); ; {
		if cfg, ok := c.entries[name]; ok {
			return authn.FromConfig(cfg)
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return c.helped(name)
		}
		name = name[:i]
	}
}
