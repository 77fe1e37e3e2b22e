package ctl

import (
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

func (c *cli) rotateCommand() *cobra.Command {
	return c.group("rotate KEY", "Replace a key of the broker", c.rotateMasterKeyCommand(), c.rotateTokenKeyCommand(), c.rotateAuditKeyCommand())
}

func (c *cli) rotateTokenKeyCommand() *cobra.Command {
	var how api.RotateTokenKey
	cmd := &cobra.Command{
		Use:   "tokenkey",
		Short: "Sign attestation tokens with the next key",
		Long: `Make the next key sign attestation tokens, and publish another next one. Tokens
that are out there stay good until they expire.

A key that was published less than fifteen minutes ago may be unknown to
verifiers elsewhere, so the broker refuses (exit code 5) unless --now says so.
--revoke is for a key that is no longer secret: every token ends at once, and
guests attest again.`,
		Example: `  kbsctl rotate tokenkey
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
				err = doing(err, "rotate the token keys")
				if exitCode(err) == fault.ExitConflict && !how.Now {
					return (&failure{err: err, exit: fault.ExitConflict}).hint("wait, or kbsctl rotate tokenkey --now")
				}
				return err
			}
			k := tokenKeyKind()
			return c.print(listed(all.Items, listOptions{}, c.tokenKeyObject), k.header, true)
		},
	}
	cmd.Flags().BoolVar(&how.Now, "now", false, "do not wait until the next key has been published for long enough")
	cmd.Flags().BoolVar(&how.Revoke, "revoke", false, "also end every token that is out there")
	return cmd
}

func (c *cli) rotateAuditKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "auditkey",
		Short: "Sign the audit log with a new key",
		Long: `Sign the audit log with a new key from now on. The old key signs a hand-over to it,
which becomes an entry of the log: whoever has the old key can go on verifying
with it. The new key is in audit.pub in the state directory of every replica
soon after.`,
		Example: `  kbsctl rotate auditkey
  kbsctl audit verify --log-key audit.pub`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			keys, err := a.AuditKeys(cmd.Context())
			if err == nil {
				keys, err = a.RotateAuditKey(cmd.Context(), keys.Current)
			}
			if err != nil {
				return doing(err, "rotate the key of the audit log")
			}
			if c.flags.output != "table" {
				return c.printData(keys)
			}
			return c.printf("%s\n", clean(keys.Current))
		},
	}
}
