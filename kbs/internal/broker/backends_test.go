package broker

import (
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
)

// A Vault mounted at a prefix serves that prefix, and nobody but its tenant.
func TestVaultAtAPrefix(t *testing.T) {
	v := vaulttest.Start(t)
	v.PutKV("team/db/password", map[string]any{"value": "from the vault"})
	cfg := testConfig(t)
	cfg.ResourceBackends = []config.ResourceBackend{{
		Name: "hq", Prefix: "team/", Type: config.BackendVaultKV, Mount: "secret",
		Vault: &config.Vault{Address: v.URL, CAFile: v.CAFile(t), Auth: config.VaultAppRole, RoleID: v.RoleID, SecretIDFile: vaulttest.File(t, v.SecretID)},
	}}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b := open(t, cfg, time.Now())
	r := b.Deps().Resources
	item, err := r.Get(t.Context(), backendtest.Path(t, "team/db/password"), 0)
	if err != nil || string(item.Value.Reveal()) != "from the vault" || item.Info.Backend != "hq" {
		t.Errorf("%+v, %v", item.Info, err)
	}
	st, err := b.shared.resources("another", b.store, b.kek)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Get(t.Context(), backendtest.Path(t, "team/db/password"), 0); err == nil {
		t.Error("another tenant reads the Vault")
	}
}
