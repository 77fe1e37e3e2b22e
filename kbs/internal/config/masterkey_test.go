package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMasterKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kbs.toml")
	text := `
[master_key]
type = "vault_transit"
key = "kbs-master"
[master_key.vault]
address = "https://vault.example:8200"
ca_file = "vault.pem"
auth = "approle"
role_id = "r"
secret_id_file = "secret-id"
[[master_key.former]]
type = "file"
path = "old.key"
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, env(nil))
	if err != nil {
		t.Fatal(err)
	}
	m := c.MasterKey
	if m.Vault.CAFile != filepath.Join(dir, "vault.pem") || m.Vault.SecretIDFile != filepath.Join(dir, "secret-id") ||
		m.Former[0].FilePath("state") != filepath.Join(dir, "old.key") || m.CacheTTL().Seconds() != 60 || m.Vault.Timeout().Seconds() != 5 {
		t.Fatalf("%+v", m)
	}
	raw, err := c.Dump()
	if err != nil {
		t.Fatal(err)
	}
	again := Default(env(nil))
	if err := Parse(raw, &again); err != nil || again.Validate() != nil || *again.MasterKey.Vault != *m.Vault {
		t.Fatalf("the dump does not read back: %v\n%s", err, raw)
	}
	if got := Default(env(nil)).MasterKey.FilePath("s"); got != filepath.Join("s", "keys", "master.key") {
		t.Errorf("default file %s", got)
	}
}

func TestMasterKeyRefused(t *testing.T) {
	const vault = "[master_key]\ntype='vault_transit'\nkey='k'\n[master_key.vault]\naddress='https://v'\n"
	for name, c := range map[string]struct{ text, want string }{
		"unknown type":      {"[master_key]\ntype='hsm'\n", "master_key.type"},
		"unknown key":       {"[master_key]\nkind='file'\n", "line 2: master_key.kind: unknown key"},
		"vault in a file":   {"[master_key]\nmount='x'\n", "master_key: mount belongs to the type \"vault_transit\""},
		"no socket":         {"[master_key]\ntype='pkcs11'\n", "master_key.socket"},
		"socket in a file":  {"[master_key]\nsocket='s'\n", "socket belongs to"},
		"key in a token":    {"[master_key]\ntype='pkcs11'\nsocket='s'\nkey='k'\n", "key belongs to"},
		"no vault":          {"[master_key]\ntype='vault_transit'\nkey='k'\n", "master_key.vault"},
		"no key":            {"[master_key]\ntype='vault_transit'\n[master_key.vault]\naddress='https://v'\nauth='token_file'\ntoken_file='t'\n", "master_key.key"},
		"path in a vault":   {"[master_key]\ntype='vault_transit'\npath='p'\n", "path belongs to"},
		"no auth":           {vault, "master_key.vault.auth"},
		"no token":          {vault + "auth='token_file'\n", "master_key.vault.token_file"},
		"no secret id":      {vault + "auth='approle'\nrole_id='r'\n", "secret_id_file"},
		"no role":           {vault + "auth='kubernetes'\n", "master_key.vault.role"},
		"two methods":       {vault + "auth='kubernetes'\nrole='r'\ntoken_file='t'\n", "belongs to auth = \"token_file\""},
		"plain http":        {strings.Replace(vault, "https", "http", 1) + "auth='kubernetes'\nrole='r'\n", "plain http"},
		"a password":        {strings.Replace(vault, "https://v", "https://u:p@v", 1) + "auth='kubernetes'\nrole='r'\n", "must be https://HOST"},
		"cache":             {"[master_key]\ncache_ttl_seconds=-1\n", "cache_ttl_seconds"},
		"former":            {"[[master_key.former]]\ntype='x'\n", "master_key.former[0].type"},
		"a token in itself": {vault + "token='x'\n", "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default(env(nil))
			err := Parse([]byte(c.text), &cfg)
			if err == nil {
				err = cfg.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	cfg := Default(env(nil))
	cfg.MasterKey.Vault = &Vault{InsecureHTTP: true}
	if got := cfg.Insecure(); !slices.Contains(got, "master_key.vault.insecure_http") {
		t.Errorf("insecure settings %q", got)
	}
}
