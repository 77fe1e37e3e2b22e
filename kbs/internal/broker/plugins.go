package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/keyring"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/external"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/nebulaca"
	tokenplugin "github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/plugin/provisioner"
	tokenvalues "github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// pluginPatience is how long a start waits for the back ends of plugins
// (kbs-protocol 8.2).
const pluginPatience = 30 * time.Second

// openPlugins connects to the programs that the configuration names. One that
// is not there stops the start.
func (s *shared) openPlugins(ctx context.Context) error {
	s.plugins = map[string]plugin.Plugin{}
	for _, p := range s.cfg.Plugins {
		if p.Name == config.PluginPKCS11 {
			t, err := s.openToken(p.Socket)
			if err != nil {
				return fmt.Errorf("plugin %s: %w", p.Name, err)
			}
			s.plugins[p.Name] = tokenplugin.New(tokenvalues.New(t), t)
		}
		if p.Name != config.PluginExternal {
			continue
		}
		var all []external.Backend
		for _, b := range p.Backends {
			back, err := pluginBackend(b)
			if err != nil {
				return fmt.Errorf("plugin %s: %s: %w", p.Name, b.Name, err)
			}
			all = append(all, back)
		}
		e, err := external.New(all)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, e.Close)
		ctx, cancel := context.WithTimeout(ctx, pluginPatience)
		defer cancel()
		if err := e.Connect(ctx); err != nil {
			return err
		}
		s.plugins[p.Name] = e
	}
	return nil
}

func pluginBackend(b config.PluginBackend) (external.Backend, error) {
	out := external.Backend{Name: b.Name, Endpoint: b.Endpoint, Timeout: b.Timeout()}
	if b.CACertPath != "" {
		pem, err := readFile(b.CACertPath)
		if err != nil {
			return out, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return out, fmt.Errorf("%s holds no certificate", b.CACertPath)
		}
	}
	if b.CertPath != "" {
		pair, err := tls.LoadX509KeyPair(b.CertPath, b.KeyPath)
		if err != nil {
			return out, err
		}
		out.Client = []tls.Certificate{pair}
	}
	return out, nil
}

// pluginsOf are those of one tenant. What is not the broker's own knows no
// tenants, so only the first one has it; of what is, each tenant has its own, over
// its own ring.
func (s *shared) pluginsOf(name string, ring *keyring.Ring, log audit.Recorder, logger *slog.Logger) (map[string]plugin.Plugin, error) {
	out := map[string]plugin.Plugin{}
	if name == tenant.Default {
		maps.Copy(out, s.plugins)
	}
	for _, p := range s.cfg.Plugins {
		switch p.Name {
		case config.PluginNebulaCA:
			ca, err := nebulaca.New(nebulaca.Config{Ring: ring, Audit: log, Settings: p.CAConfig.Settings(), Now: s.Now, Logger: logger})
			if err != nil {
				return nil, err
			}
			out[p.Name] = ca
		case config.PluginProvisioner:
			out[p.Name] = provisioner.New(ring, p.KeyLength)
		}
	}
	return out, nil
}
