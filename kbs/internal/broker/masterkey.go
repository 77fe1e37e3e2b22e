package broker

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/transit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/vault"
)

// openKeys opens the master keys that the configuration names: the first one
// makes new keys, and the former ones open what is still under them.
func (s *shared) openKeys(ctx context.Context) (*kek.Set, error) {
	c := s.cfg.MasterKey
	var holders []kek.Holder
	for _, h := range append([]config.KeyHolder{c.KeyHolder}, c.Former...) {
		holder, err := s.holder(h)
		if err != nil {
			return nil, fmt.Errorf("master_key: %w", err)
		}
		holders = append(holders, holder)
	}
	set, err := kek.OpenSet(ctx, s.store, s.Now, holders...)
	if err == nil && s.cfg.StorageBackend.Kind() != config.StorageSQLite {
		set.Share()
	}
	return set, err
}

// openWalker opens what moves all records to a new master key, and goes on
// with what another process left.
func (s *shared) openWalker() {
	retired := func(tx store.Tx, ids []string) error {
		for _, id := range ids {
			_, err := s.audit.AppendTx(store.Unscoped(tx), api.AuditEntry{
				Kind: api.AuditMasterKeyRetire, Decision: "change", Subject: "kbs", Object: "masterkey/" + id,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	ofTenant := func(name string) kek.Wrapper { return tenant.Wrapper(s.kek, name) }
	s.walker = kek.NewWalker(s.kek, ofTenant, retired, s.Logger, keyring.Records{}, resource.Records{})
	s.background = append(s.background, s.walker.Run)
}

func (s *shared) holder(h config.KeyHolder) (kek.Holder, error) {
	var far kek.Holder
	switch h.Type {
	case config.MasterKeyFile:
		return kek.Files(h.FilePath(s.cfg.StateDir)), nil
	case config.MasterKeyPKCS11:
		token, err := remote.New(h.Socket)
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, token.Close)
		far = token
	default:
		client, err := s.vault(*h.Vault)
		if err != nil {
			return nil, err
		}
		far = transit.New(client, h.Mount, h.Key)
	}
	c := s.cfg.MasterKey
	return kek.Caching(far, c.CacheSize, c.CacheTTL(), s.Now), nil
}

// vault returns a client that stays logged in while the broker serves.
func (s *shared) vault(v config.Vault) (*vault.Client, error) {
	c := vault.Config{Address: v.Address, Namespace: v.Namespace, Timeout: v.Timeout(), Now: s.Now}
	if v.CAFile != "" {
		pem, err := readFile(v.CAFile)
		if err != nil {
			return nil, fmt.Errorf("vault: ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("vault: ca_file: %s holds no certificate", v.CAFile)
		}
	}
	switch v.Auth {
	case config.VaultTokenFile:
		c.Auth = vault.TokenFile(v.TokenFile)
	case config.VaultAppRole:
		c.Auth = vault.AppRole(v.AuthMount, v.RoleID, v.SecretIDFile)
	case config.VaultKubernetes:
		c.Auth = vault.Kubernetes(v.AuthMount, v.Role, v.JWTFile)
	}
	client, err := vault.New(c)
	if err != nil {
		return nil, err
	}
	s.background = append(s.background, client.Keep)
	return client, nil
}
