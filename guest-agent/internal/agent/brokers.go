package agent

import (
	"log/slog"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/brokers"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/passport"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client"
	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// newBrokers returns what asks the brokers of the settings, nil without one.
func newBrokers(s *settings.Settings, platform measure.Attester, log *slog.Logger) (hub.Broker, error) {
	if s.Broker.URL == "" {
		return nil, nil
	}
	var all []brokers.Broker
	for _, b := range append([]settings.Broker{s.Broker}, s.Standby...) {
		c, err := newBroker(s, b, platform, log)
		if err != nil {
			return nil, err
		}
		all = append(all, brokers.Broker{URL: b.URL, Client: c, NamedOnly: b.NamedOnly})
	}
	return brokers.New(all, time.Now, log)
}

// newBroker returns the client of one broker, nil if b names none.
func newBroker(s *settings.Settings, b settings.Broker, platform measure.Attester, log *slog.Logger) (*client.Client, error) {
	if b.URL == "" {
		return nil, nil
	}
	roots, err := b.RootCAs()
	if err != nil {
		return nil, err
	}
	cfg := client.Config{
		URL: b.URL, RootCAs: roots, UnsafePlainHTTP: b.InsecurePlainHTTP, Attester: platform, KeyAlgorithm: b.KeyAlgorithm, Logger: log,
	}
	if s.InitData != nil {
		cfg.InitData = &api.InitData{Format: "toml", Body: string(s.InitData.Raw())}
	}
	return client.New(cfg)
}

// newTokens returns what workloads are given to show to others.
func newTokens(s *settings.Settings, platform measure.Attester, log *slog.Logger) (hub.Tokens, error) {
	t := hub.Tokens{UnsafeKeyPairs: s.InsecureTokenKeyPairs}
	if t.UnsafeKeyPairs {
		log.Warn("insecure_token_keypairs: whoever can ask for a token can have from the broker what this guest can, from anywhere")
	}
	if as := s.AttestationService; as.URL != "" {
		source, err := passport.New(passport.Config{URL: as.URL, UnsafePlainHTTP: as.InsecurePlainHTTP, Attester: platform})
		if err != nil {
			return t, err
		}
		t.Service = source.Token
	}
	return t, nil
}
