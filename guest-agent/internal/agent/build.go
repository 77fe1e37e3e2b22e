package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/attester"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
)

// maxSource bounds the files that configure the guest; package settings has
// stricter limits of its own.
const maxSource = 16 << 20

// load reads the settings.
func load(o Options) (*settings.Settings, error) {
	cmdline, err := readFile(o.KernelCmdline)
	if err != nil {
		return nil, fmt.Errorf("kernel command line: %w", err)
	}
	src := settings.Sources{CommandLine: string(cmdline), ConfigFile: o.ConfigFile, ReadImage: readImage, Getenv: os.Getenv}
	if o.InitData != "" {
		if src.InitData, err = readFile(o.InitData); err != nil {
			return nil, fmt.Errorf("init-data: %w", err)
		}
		if len(src.InitData) == 0 {
			return nil, errors.New("init-data: the file is empty")
		}
	}
	return settings.Load(src)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readAll(f)
}

func readAll(f *os.File) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxSource {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.Name(), maxSource)
	}
	return raw, nil
}

// journalSize bounds each of the journal's two files.
const journalSize = 1 << 20

// sealingKeyDir is where the field looks for keys that sign sealed secrets
// (guest-protocol 10.1).
const sealingKeyDir = "/run/confidential-containers/cdh/sealed-secret"

// newHub builds what attests, fetches and pulls. Before anything of the
// init-data counts it is compared with what the hardware was launched with.
func newHub(ctx context.Context, o Options, s *settings.Settings, progress func(pull.Event), log *slog.Logger) (*hub.Hub, func() error, error) {
	guest, err := openGuest(ctx, o, s, log)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := imageConfig(o, s.Image)
	if err != nil {
		return nil, nil, err
	}
	cfg.Logger, cfg.Progress = log, progress
	cfg.Sealed = hub.Sealed{KeyDir: sealingKeyDir, UnsafeUnsigned: s.SkipSealedVerification, Credentials: map[string]string{}}
	for _, c := range s.Credentials {
		cfg.Sealed.Credentials[c.Path] = c.ResourceURI
	}
	if s.SkipSealedVerification {
		log.Warn("skip_sealed_secret_verification: whoever writes the pod's specification chooses which secrets are delivered")
	}
	if guest != nil {
		cfg.Attester = guest.Attester
		if s.InitData != nil {
			cfg.InitData = s.InitData.Digest() // compared by openGuest
		}
		if cfg.Tokens, err = newTokens(s, guest.Attester, log); err != nil {
			return nil, nil, err
		}
		if cfg.Broker, err = newBrokers(s, guest.Attester, log); err != nil {
			return nil, nil, err
		}
		if cfg.Events, err = newEvents(s.EventLog, guest, log); err != nil {
			return nil, nil, err
		}
	}
	if err := os.MkdirAll(o.StateDir, 0o711); err != nil {
		return nil, nil, err
	}
	journal, err := hub.OpenJournal(journalFile(o), journalSize)
	if err != nil {
		return nil, nil, err
	}
	cfg.Journal = journal
	h, err := hub.New(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, journal.Close())
	}
	return h, func() error { return errors.Join(h.Close(), journal.Close()) }, nil
}

// imageConfig is the hub's configuration as far as images go.
func imageConfig(o Options, i settings.Image) (hub.Config, error) {
	roots, err := i.RootCAs()
	if err != nil {
		return hub.Config{}, err
	}
	cfg := hub.Config{
		ImageDir:          hubDir(o, i),
		ImagePolicyURI:    i.PolicyURI,
		ImagePolicyInline: i.PolicyInline,
		LookasideURI:      i.LookasideURI,
		LookasideInline:   i.LookasideInline,
		Registry: registry.Config{
			InsecureHTTPHosts: i.PlainHTTPHosts(), RootCAs: roots, Registries: i.Registries, Proxy: i.Proxy,
			TLS: map[string]registry.HostTLS{}, UserAgent: "vouchsafe-guest-agent/" + o.Version,
		},
		RegistriesURI:  i.RegistriesURI,
		AuthURI:        i.AuthURI,
		Certificates:   map[string]string{},
		ImageKeys:      i.KeyURIs,
		ParallelLayers: i.ParallelLayers,
		LibraryGzip:    o.LibraryGzip,
	}
	if i.InMemory {
		cfg.Store = append(cfg.Store, store.InMemory(store.Usage{Bytes: i.MemoryLimit}))
	}
	if i.Verity {
		cfg.Store = append(cfg.Store, store.AsImages())
	}
	for _, t := range i.RegistryTLS {
		own, err := t.RootCAs()
		if err != nil {
			return cfg, err
		}
		cfg.Registry.TLS[t.Host] = registry.HostTLS{RootCAs: own}
		if t.CertificateURI != "" {
			cfg.Certificates[t.Host] = t.CertificateURI
		}
	}
	return cfg, nil
}

// hubDir is where the hub keeps images.
func hubDir(o Options, i settings.Image) string {
	if i.WorkDir != "" {
		return filepath.Join(i.WorkDir, "vouchsafe") // what else lies there is not the store's
	}
	return imageDir(o)
}

// attesterOptions are what the command line says about attesters.
func (o Options) attesterOptions(log *slog.Logger) attester.Options {
	return attester.Options{
		Platform: o.Platform, TPMDevice: o.TPMDevice, RuntimeLog: o.RuntimeLog, Logger: log,
		SimulatedSNP: o.SimulatedSNP, SimulatedTDX: o.SimulatedTDX,
	}
}

// openGuest returns nil, and says so, on a machine that cannot attest. Such an
// agent runs no image, for no policy can be fetched, and accepts no init-data,
// for nothing binds it. A platform that was asked for by name must be there.
func openGuest(ctx context.Context, o Options, s *settings.Settings, log *slog.Logger) (*obtain.Guest, error) {
	options := o.attesterOptions(log)
	options.Record = true
	guest, err := attester.Open(ctx, options)
	anything := o.Platform == "" || o.Platform == attester.Auto
	if errors.Is(err, attester.ErrNone) && anything && s.InitData == nil {
		log.Warn("this machine cannot attest: nothing can be fetched from a broker", slog.Any("err", err))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := settings.CheckBinding(ctx, s.InitData, guest.Attester); err != nil {
		return nil, fmt.Errorf("init-data: %w", err)
	}
	return guest, nil
}

// newEvents returns what records runtime events, nil if nothing is to be
// recorded. Upstream goes on where the platform has no register for them, and so
// does this: whoever judges the evidence sees that there are none.
func newEvents(s settings.EventLog, guest *obtain.Guest, log *slog.Logger) (hub.Events, error) {
	if !s.Enabled {
		return nil, nil
	}
	recorder, err := attester.NewRecorder(guest, s.PCR)
	if errors.Is(err, aael.ErrNotSupported) {
		log.Warn("eventlog_config.enable_eventlog: nothing is recorded", slog.Any("err", err))
		return hub.NoEvents{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("eventlog_config: %w", err)
	}
	return recorder, nil
}
