// Package broker joins the rooms of the key broker over one state directory:
//
//	kbs.db                  the store (0600), unless PostgreSQL is
//	keys/master.key         wraps all that is secret in the store: resources, and
//	                        the keys that every replica must share
//	keys/admin.pem          signs admin tokens; read by `kbs admin-token` only
//	keys/admin.pub          what a running broker knows of it
//	collateral/             what vendors publish, if the configuration wants it
//	audit.pub               verifies the checkpoints
//	tls/cert.pem, key.pem   made here unless the configuration names others
//	admin/token             an owner's token, written at the first start
//
// Keys are generated where they are missing, with mode 0600 in directories of
// mode 0700, and never replaced. A key that others may read stops the start.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
)

// Options are what a broker needs beside its configuration.
type Options struct {
	Logger  *slog.Logger
	Now     func() time.Time
	Version string // shown in tokens

	// The rest may be left out.

	// Level is that of Logger, for a reload to set.
	Level *slog.LevelVar
	// Load reads the configuration again; nil means that it never changes.
	// Files are those that it was read from.
	Load  func() (config.Loaded, error)
	Files []string
	// Hangup asks for a reload, as SIGHUP does.
	Hangup <-chan os.Signal
	// Notify tells a service manager of states (see package systemd).
	Notify func(states ...string) error
	// Watchdog is how often it wants to hear that the broker lives; 0 is never.
	Watchdog time.Duration
	// Inherited are sockets that it opened, by "guests", "admins" and
	// "metrics". They go before the configured ones.
	Inherited map[string][]net.Listener
}

// Broker is an opened broker. It serves nothing until Serve.
type Broker struct {
	shared

	tls     *tlsFiles // nil without TLS
	tenants *tenants
	home    *rooms // the rooms of the tenant "default"
}

// Open opens the state directory, creating what is missing, and joins the
// rooms. The caller closes the broker.
func Open(ctx context.Context, cfg config.Config, o Options) (_ *Broker, err error) {
	dir := cfg.StateDir
	for _, d := range []string{dir, filepath.Join(dir, "keys"), filepath.Join(dir, "admin"), filepath.Join(dir, "tls")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	b := &Broker{shared: shared{Options: o, cfg: cfg}}
	if err := b.openOperations(ctx); err != nil {
		return nil, err
	}
	if b.tls, err = openTLS(cfg, o.Now); err != nil {
		return nil, err
	}
	if err := b.openCollateral(); err != nil {
		return nil, err
	}
	if err := b.openVerifiers(); err != nil {
		return nil, err
	}
	if b.store, err = OpenStore(ctx, cfg); err != nil {
		return nil, err
	}
	b.store = b.metrics.Store(b.store)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	return b, b.join(ctx)
}

// Close signs the log a last time and closes the store. Serve must have
// returned.
func (b *Broker) Close() error {
	if b.host != nil { // writes what it recorded
		b.host.Close()
	}
	if b.audit != nil {
		b.signLog(context.Background())
	}
	var err error
	for _, c := range b.closers {
		err = errors.Join(err, c())
	}
	if b.remote != nil {
		err = errors.Join(err, b.remote.Close())
	}
	if b.tracer != nil {
		if lost := b.tracer.Close(context.Background()); lost != nil {
			b.Logger.Warn("the last traces were not delivered", slog.String("event_id", "tracing.failed"), slog.Any("error", lost))
		}
	}
	return errors.Join(err, b.store.Close())
}

// Deps returns the rooms of the tenant "default".
func (b *Broker) Deps() server.Deps { return b.home.deps }

// join opens what all tenants share, and then the rooms of the tenant that
// always exists, so that a broker which cannot serve does not start.
func (b *Broker) join(ctx context.Context) error {
	if err := b.open(ctx); err != nil {
		return err
	}
	b.tenants = newTenants(&b.shared)
	var err error
	if b.home, err = b.tenants.rooms(ctx, tenant.Default); err != nil {
		return err
	}
	return started(ctx, b.store, b.audit, b.cfg)
}

// installed records the policies that a new broker begins with.
func installed(log audit.Recorder) policy.Change {
	return func(tx store.Tx, p api.Policy) error {
		_, err := log.AppendTx(tx, api.AuditEntry{
			Kind: api.AuditPolicyPut, Decision: "change", Subject: "kbs",
			Object: "policy/" + policy.Ref(policy.Kind(p.Kind), p.ID, p.Version),
		})
		return err
	}
}

// started records a start together with every setting that weakens it, so
// that nobody can weaken a broker for an hour unseen.
func started(ctx context.Context, st store.Store, log audit.Recorder, cfg config.Config) error {
	e := api.AuditEntry{Kind: api.AuditBrokerStart, Decision: "change", Subject: "kbs"}
	if weak := cfg.Insecure(); len(weak) > 0 {
		e.Details = map[string]string{"insecure": strings.Join(weak, ", ")}
	}
	return st.Update(ctx, func(tx store.Tx) error {
		if err := recordRestore(tx, log); err != nil {
			return err
		}
		_, err := log.AppendTx(tx, e)
		return err
	})
}
