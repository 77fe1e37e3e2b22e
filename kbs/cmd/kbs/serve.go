package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/logging"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/systemd"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/tenant"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

func (p *program) serveCommand() *cobra.Command {
	var from settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Run the broker until SIGTERM or SIGINT.

Without a configuration it keeps its state in $STATE_DIRECTORY or ./state,
listens on loopback only, and makes every key and its TLS certificate at the
first start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.serveFrom(cmd.Context(), from) },
	}
	from.flags(cmd.Flags())
	return cmd
}

func (p *program) serveFrom(ctx context.Context, from settings) (err error) {
	cfg, err := p.load(from)
	if err != nil {
		return err
	}
	if n := cfg.HTTPServer.WorkerCount; n > 0 {
		runtime.GOMAXPROCS(n)
	}
	spendMemory(ctx, p.getenv)
	o, stop, err := p.options(cfg, from)
	if err != nil {
		return err
	}
	defer stop()
	b, err := broker.Open(ctx, cfg.Config, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	l, err := b.Listen(ctx)
	if err != nil {
		return err
	}
	p.announce(cfg.Config, b, l)
	for _, w := range cfg.Insecure() {
		o.Logger.WarnContext(ctx, "insecure setting in force", slog.String("event_id", "config.insecure"), slog.String("setting", w))
	}
	return b.Serve(ctx, l)
}

// options joins the broker to the world outside: its log, signals, and the
// service manager. The caller calls stop.
func (p *program) options(cfg config.Loaded, from settings) (o broker.Options, stop func(), err error) {
	inherited, err := systemd.Listeners(p.getenv, os.Getpid())
	if err != nil {
		return o, nil, err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	level := &slog.LevelVar{}
	level.Set(cfg.Logging.SlogLevel())
	return broker.Options{
		Logger: logging.New(p.io.err, cfg.Logging.Format, level), Now: time.Now, Version: version.Here().Short(),
		Level: level, Load: func() (config.Loaded, error) { return p.load(from) }, Files: cfg.Files, Hangup: hangup,
		Notify: systemd.NewNotifier(p.getenv).Notify, Watchdog: systemd.WatchdogInterval(p.getenv, os.Getpid()), Inherited: inherited,
	}, func() { signal.Stop(hangup) }, nil
}

// announce tells a person where everything is. The token itself is not shown:
// whatever is printed ends up in a log.
func (p *program) announce(cfg config.Config, b *broker.Broker, l broker.Listeners) {
	scheme := "https://"
	if b.CertificatePath() == "" {
		scheme = "http://"
	}
	urls := func(scheme string, lns []net.Listener) string {
		var out []string
		for _, ln := range lns {
			out = append(out, scheme+ln.Addr().String())
		}
		return strings.Join(out, " ")
	}
	line := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(p.io.err, "  %-12s %s\n", name, value)
		}
	}
	_, _ = fmt.Fprintln(p.io.err, "kbs is serving")
	line("guests", urls(scheme, l.Guest))
	line("admins", urls(scheme, l.Admin))
	line("metrics", urls("http://", l.Metrics))
	line("AS (gRPC)", urls(plain(cfg.AttestationService.GRPC), l.AS))
	line("AS (REST)", urls(plain(cfg.AttestationService.REST), l.REST))
	line("RVPS", urls(plain(cfg.RVPS.GRPC), l.RVPS))
	line("certificate", b.CertificatePath())
	first := broker.AdminTokenPath(cfg.StateDir)
	if time.Now().After(broker.AdminTokenEnds(cfg.StateDir)) {
		first = "(the first one has ended: kbs admin-token makes others)"
	}
	line("admin token", first)
}

func plain(l config.ServiceListener) string {
	if l.InsecureHTTP {
		return "http://"
	}
	return "https://"
}

func (p *program) adminTokenCommand() *cobra.Command {
	var from settings
	var role, subject string
	var tenants []string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "admin-token",
		Short: "Make an admin token and print it",
		Long: `Make an admin token with the key in the state directory and print it.

Roles: viewer reads everything but secrets and the audit log, operator also
changes resources and reference values, auditor also reads the audit log,
approver approves what others ask for, owner does all but approving. Nobody reads
a secret. The token is for all tenants and the broker itself, or for those named.

It lives at most as long as the configuration allows any token to
(admin.max_token_lifetime_hours). It is for the beginning, and for the day on
which the identity provider is gone: name a provider in the configuration for all
others.`,
		Example: `  kbs admin-token >state/admin/token
  kbs admin-token --config kbs.toml --role auditor --ttl 1h`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := p.load(from)
			if err != nil {
				return err
			}
			r, err := admin.ParseRole(role)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if most := cfg.Admin.MaxTokenLifetime(); ttl > most {
				return fmt.Errorf("%w: --ttl %s: the broker accepts no token that lives longer than %s (admin.max_token_lifetime_hours)", errUsage, ttl, most)
			}
			for _, t := range tenants {
				if err := tenant.CheckName(t); err != nil {
					return fmt.Errorf("%w: %w", errUsage, err)
				}
			}
			text, err := broker.IssueToken(cfg.StateDir, admin.Token{Grant: admin.Grant{Role: r, Tenants: tenants}, Subject: subject, Lifetime: ttl}, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(p.io.out, "%s\n", text.Reveal())
			return err
		},
	}
	from.flags(cmd.Flags())
	cmd.Flags().StringVar(&role, "role", string(admin.Owner), "`ROLE`: viewer, operator, approver, auditor or owner")
	cmd.Flags().StringArrayVar(&tenants, "tenant", nil, "`NAME` of a tenant that it is for (repeatable; by default all, and the broker)")
	cmd.Flags().StringVar(&subject, "subject", "cli", "`NAME` of who will bear it, as the audit log shows")
	cmd.Flags().DurationVar(&ttl, "ttl", 12*time.Hour, "live for this `DURATION`")
	return cmd
}
