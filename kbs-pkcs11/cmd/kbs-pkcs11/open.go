package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/opener"
	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// openPatience is how long a person may take to touch a token that wants it.
const openPatience = time.Minute

func openCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "open",
		Short: "Decrypt or sign with one key pair, for kbsctl",
		Long: `Decrypt or sign with one key pair of a token for the program that started this one:
kbsctl does, where --with-key, --recipient, --key or --sign names a key by its PKCS#11 URI. Which
key, its PIN and the questions come on standard input, the answers go to standard
output, and the end of the input is the end. No configuration is read.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return opener.Serve(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), func(o tokenkey.Open) (opener.Token, error) {
				return openToken(o, cmd.ErrOrStderr())
			})
		},
	}
}

// openToken logs in once. The PIN is not tried a second time: tokens lock
// themselves.
func openToken(o tokenkey.Open, stderr io.Writer) (opener.Token, error) {
	return token.Open(token.Config{
		Module: o.Module, Token: token.Which{Label: o.Token, Serial: o.Serial, Manufacturer: o.Manufacturer, Model: o.Model, Slot: o.Slot}, Sessions: 1, Now: time.Now, Longest: openPatience,
		PIN: func() (secret.Bytes, error) { return secret.Copy(o.PIN), nil },
		Hung: func() {
			_, _ = fmt.Fprintf(stderr, "kbs-pkcs11: the module took more than %v; the process ends\n", openPatience)
			os.Exit(fault.ExitUnavailable)
		},
	})
}
