package broker

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault/vaulttest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A broker whose master key is in a file moves to a Vault, as the configuration
// says, and from then on cannot open anything without it.
func TestMasterKeyMovesToAVault(t *testing.T) {
	s := vaulttest.Start(t)
	cfg := config.Default(func(string) string { return "" })
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	options := Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Version: "test"}
	path, err := resource.ParsePath("a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(*Broker)) {
		t.Helper()
		b, err := Open(t.Context(), cfg, options)
		if err != nil {
			t.Fatal(err)
		}
		f(b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	get := func(b *Broker) error {
		item, err := b.Deps().Resources.Get(t.Context(), path, 0)
		if err == nil && string(item.Value.Reveal()) != "value" {
			t.Error("another value")
		}
		return err
	}
	with(func(b *Broker) {
		c := resource.Change{Op: resource.OpPut, Path: path, Want: -1, Value: secret.Copy([]byte("value"))}
		if _, err := b.Deps().Resources.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	})

	file := cfg.MasterKey.KeyHolder
	cfg.MasterKey.KeyHolder = config.KeyHolder{Type: config.MasterKeyVault, Key: "kbs", Vault: &config.Vault{
		Address: s.URL, CAFile: s.CAFile(t), Auth: config.VaultAppRole, RoleID: s.RoleID, SecretIDFile: vaulttest.File(t, s.SecretID),
	}}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg, options); !errors.Is(err, kek.ErrUnknown) {
		t.Fatalf("without the key that everything is under: %v", err)
	}
	cfg.MasterKey.Former = []config.KeyHolder{file}
	k, err := RotateMasterKey(t.Context(), cfg, options, "")
	if err != nil || k.Current != "transit:transit.kbs:v1" || k.Progress.Moved == 0 || k.Keys[0].Retired.IsZero() {
		t.Fatalf("%+v, %v", k, err)
	}

	cfg.MasterKey.Former = nil
	with(func(b *Broker) {
		before := s.Count("transit/decrypt/kbs")
		for range 20 {
			if err := get(b); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Count("transit/decrypt/kbs") - before; n > 1 {
			t.Errorf("20 releases cost %d round trips", n)
		}
	})
	cfg.MasterKey.CacheTTLSeconds = 0
	with(func(b *Broker) {
		if err := get(b); err != nil {
			t.Fatal(err)
		}
		s.Lock()
		s.Mood = func(w http.ResponseWriter, _ *http.Request) bool {
			vaulttest.Refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
			return true
		}
		s.Unlock()
		if err := get(b); !errors.Is(err, vault.ErrUnavailable) {
			t.Errorf("with the Vault sealed: %v", err)
		}
	})
}
