package ctl

import (
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func (c *cli) tokenKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tokenkey",
		Short: "Rotate the keys that sign attestation tokens",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.tokenKeyRotateCommand())
	return cmd
}

func (c *cli) tokenKeyRotateCommand() *cobra.Command {
	var how api.RotateTokenKey
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make the next key sign, and publish another next one",
		Long: `Make the next key sign attestation tokens, and publish another next one. Tokens
that are out there stay good until they expire.

A key that was published less than fifteen minutes ago may be unknown to
verifiers elsewhere, so the broker refuses (exit code 5) unless --now says so.
--revoke is for a key that is no longer secret: every token ends at once, and
guests attest again.`,
		Example: `  kbsctl tokenkey rotate
  kbsctl get tokenkeys`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			before, err := a.TokenKeys(cmd.Context())
			if err != nil {
				return doing(err, "list the token keys")
			}
			all, err := a.RotateTokenKey(cmd.Context(), how, before.Version)
			if err != nil {
				return doing(err, "rotate the token keys")
			}
			k := tokenKeyKind()
			return c.print(listed(all.Items, listOptions{}, c.tokenKeyObject), k.header, true)
		},
	}
	cmd.Flags().BoolVar(&how.Now, "now", false, "do not wait until the next key has been published for long enough")
	cmd.Flags().BoolVar(&how.Revoke, "revoke", false, "also end every token that is out there")
	return cmd
}
