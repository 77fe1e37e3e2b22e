package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/opener"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/service"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

const idPrefix = "pkcs11:" // of what the broker calls a key

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "kbs-pkcs11",
		Short: "Hold the key broker's keys and values in a PKCS#11 token",
		Long: `Hold the key broker's keys and values in a PKCS#11 token, whose library runs in
this process and in no other. Its configuration and the broker's are described in
docs/reference/backends.md.

Exit codes: 0 ok, 1 usage, configuration or the token's refusal, 6 the token
cannot be reached or does not answer.`,
		SilenceErrors: true, SilenceUsage: true,
	}
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	var path string
	root.PersistentFlags().StringVarP(&path, "config", "c", "/etc/vouchsafe/kbs-pkcs11.toml", "configuration `FILE`")
	root.AddCommand(initCommand(&path), serveCommand(&path), openCommand(), versionCommand())
	root.SetIn(stdin)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	if !errors.Is(err, opener.ErrTold) { // who asked says it
		_, _ = fmt.Fprintln(stderr, "kbs-pkcs11:", strings.TrimSpace(err.Error()))
	}
	if !understood {
		if !cmd.HasSubCommands() {
			_, _ = fmt.Fprintf(stderr, "  usage  %s\n", cmd.UseLine())
		}
		_, _ = fmt.Fprintf(stderr, "  hint   %s --help\n", cmd.CommandPath())
	}
	if errors.Is(err, token.ErrAway) {
		return fault.ExitUnavailable
	}
	return fault.ExitUsage
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Here().Line("kbs-pkcs11"))
			return err
		},
	}
}

func initCommand(path *string) *cobra.Command {
	var another bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys that the configuration names, within the token",
		Long: `Make the master key within the token, an AES-256 key that cannot be read out of
it, and print the id by which the broker knows it. A token that has one keeps
it, and its id is printed; with --another a further key is made, for
"kbsctl rotate masterkey --to ID" of brokers with several replicas. If
lookup_label is set and names no key pair yet, a pair of RSA-3072 is made too.`,
		Example: "  kbs-pkcs11 --config kbs-pkcs11.toml init",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, tok, err := open(*path, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { _ = tok.Close() }()
			if pair, ok := cfg.Pair(); ok {
				if err := tok.MakePair(cmd.Context(), pair.Label); err != nil {
					return err
				}
			}
			if cfg.MasterKey == "" {
				return nil
			}
			names, err := tok.Keys(cmd.Context(), cfg.MasterKey)
			if err != nil {
				return err
			}
			if len(names) == 0 || another {
				name, err := tok.Make(cmd.Context(), cfg.MasterKey)
				if err != nil {
					return err
				}
				names = append(names, name)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), idPrefix+names[len(names)-1])
			return err
		},
	}
	cmd.Flags().BoolVar(&another, "another", false, "make a key though there is one")
	return cmd
}

func serveCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the keys to the broker, until a signal",
		Long: `Serve the keys to the broker over the socket that the configuration names, until
SIGTERM or SIGINT. Whoever may open the socket may use the keys: run it as the
broker's user.`,
		Example: "  kbs-pkcs11 --config kbs-pkcs11.toml serve",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, tok, err := open(*path, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { _ = tok.Close() }()
			what, keys, err := served(cmd.Context(), cfg, tok)
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			l, err := service.Listen(cmd.Context(), cfg.Socket)
			if err != nil {
				return err
			}
			logger.InfoContext(cmd.Context(), "serving", slog.String("socket", cfg.Socket), slog.String("token", cfg.Token), slog.Int("keys", keys), slog.Bool("resources", cfg.Resources), slog.String("wrap_key", cfg.LookupLabel))
			return service.Serve(cmd.Context(), l, what, logger)
		},
	}
}

// served is what the configuration says; keys counts the master keys.
func served(ctx context.Context, cfg config.Config, tok *token.Token) (what service.Served, keys int, err error) {
	if cfg.MasterKey != "" {
		names, err := tok.Keys(ctx, cfg.MasterKey)
		if err != nil {
			return what, 0, err
		}
		what.Keys, what.Label, keys = tok, cfg.MasterKey, len(names)
	}
	if cfg.Resources {
		what.Objects = tok
	}
	if pair, ok := cfg.Pair(); ok {
		what.Pairs, what.Pair = tok, pair
	}
	return what, keys, nil
}

func open(path string, stderr io.Writer) (config.Config, *token.Token, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return cfg, nil, err
	}
	tok, err := token.Open(token.Config{
		Module: cfg.Module, Token: token.Which{Label: cfg.Token}, Sessions: cfg.Sessions, PIN: cfg.PIN, Unattended: true, Now: time.Now, Longest: cfg.Hang(),
		Hung: func() { // a thread that is inside the module can be ended with the process only
			_, _ = fmt.Fprintf(stderr, "kbs-pkcs11: the module took more than %v; the process ends\n", cfg.Hang())
			os.Exit(fault.ExitUnavailable)
		},
	})
	return cfg, tok, err
}
