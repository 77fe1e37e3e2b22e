package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/service"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
)

const idPrefix = "pkcs11:" // of what the broker calls a key

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "kbs-pkcs11",
		Short:         "Hold the key broker's master key in a PKCS#11 token",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	var path string
	root.PersistentFlags().StringVarP(&path, "config", "c", "/etc/vouchsafe/kbs-pkcs11.toml", "the configuration `file`")
	root.AddCommand(initCommand(&path), serveCommand(&path))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return fault.ExitOK
	}
	_, _ = fmt.Fprintln(stderr, "kbs-pkcs11:", err)
	if errors.Is(err, token.ErrAway) {
		return fault.ExitUnavailable
	}
	return fault.ExitUsage
}

func initCommand(path *string) *cobra.Command {
	var another bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the master key within the token, and print its id",
		Long: `Make the master key within the token, an AES-256 key that cannot be read out of
it, and print the id by which the broker knows it. A token that has one keeps
it, and its id is printed; with --another a further key is made, for
"kbsctl rotate masterkey --to ID" of brokers with several replicas.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, tok, err := open(*path)
			if err != nil {
				return err
			}
			defer func() { _ = tok.Close() }()
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
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, tok, err := open(*path)
			if err != nil {
				return err
			}
			defer func() { _ = tok.Close() }()
			names, err := tok.Keys(cmd.Context(), cfg.MasterKey)
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			l, err := service.Listen(cmd.Context(), cfg.Socket)
			if err != nil {
				return err
			}
			logger.InfoContext(cmd.Context(), "serving", slog.String("socket", cfg.Socket), slog.String("token", cfg.Token), slog.Int("keys", len(names)))
			return service.Serve(cmd.Context(), l, tok, cfg.MasterKey, logger)
		},
	}
}

func open(path string) (config.Config, *token.Token, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return cfg, nil, err
	}
	tok, err := token.Open(token.Config{Module: cfg.Module, Token: cfg.Token, Sessions: cfg.Sessions, PIN: cfg.PIN, Now: time.Now})
	return cfg, tok, err
}
