package ctl

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// revocationFlags are what a revocation says beside whom it is about.
type revocationFlags struct {
	issuer, reason string
	last           time.Duration
}

func (c *cli) revokeCommand() *cobra.Command {
	var f revocationFlags
	cmd := &cobra.Command{
		Use:   "revoke token/ID | subject/NAME | guest/TOKEN-ID | claim/PATH=VALUE | lease/ID",
		Short: "End an administrator's token, or cut a guest off",
		Long: `End an administrator's token before its time, by its id (jti), or all tokens that a
subject was given until now. One's own can always be revoked; others' by an
owner of the whole broker.

Or cut guests off: guest/TOKEN-ID ends what one attestation earned, by the id
that audit entries and tickets show behind guest:PLATFORM/, and the guest may
attest again. claim/PATH=VALUE keeps out every guest whose evidence shows that
claim, with the tokens that it has, too. lease/ID keeps one object from one
guest, whatever token it has. kbsctl delete guestrevocation takes it
back.`,
		Example: `  kbsctl revoke token/5f2c... --reason 'laptop lost'
  kbsctl revoke subject/ann --issuer https://idp.example/realms/prod
  kbsctl revoke guest/9b1e... --reason 'incident 7'
  kbsctl revoke claim/snp.chip_id=8fab... --reason 'stolen machine' --for 30d
  kbsctl revoke lease/mvq4... --reason 'moved to another team'`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			done, err := c.revoke(cmd.Context(), a, args[0], f)
			if err != nil {
				return doing(err, "revoke %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(done)
			}
			return c.printf("%s revoked\n", clean(args[0]))
		},
	}
	cmd.Flags().StringVar(&f.issuer, "issuer", "", "`ISSUER` of an administrator's token (default: the broker itself)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "`REASON`, for the audit log; a guest's revocation needs one")
	spanFlag(cmd.Flags(), &f.last, "for", 0, "cut a guest off for this `DURATION` (default: until it is taken back)")
	return cmd
}

func (c *cli) revoke(ctx context.Context, a *admin.Client, whom string, f revocationFlags) (any, error) {
	what, name := cutName(whom)
	if name == "" {
		what = ""
	}
	g := api.GuestRevocation{Reason: f.reason}
	if f.last != 0 {
		g.Until = c.now().Add(f.last)
	}
	switch what {
	case "token", "subject":
		if f.last != 0 {
			return nil, usagef("--for is about guests")
		}
		r := api.RevocationRequest{Issuer: f.issuer, Reason: f.reason, TokenID: name}
		if what == "subject" {
			r.TokenID, r.Subject = "", name
		}
		return a.Revoke(ctx, r)
	case "guest":
		g.TokenID = name
	case "lease":
		g.Lease = name
	case "claim":
		var ok bool
		if g.Claim, g.Value, ok = strings.Cut(name, "="); !ok || g.Value == "" {
			return nil, usagef("claim/%s lacks its value", name).hint("kbsctl revoke claim/snp.chip_id=VALUE --reason WHY")
		}
	default:
		return nil, usagef("revoke takes token/ID, subject/NAME, guest/TOKEN-ID, claim/PATH=VALUE or lease/ID, not %q", whom)
	}
	if f.reason == "" || f.issuer != "" {
		return nil, usagef("a guest's revocation has a --reason, and no --issuer")
	}
	return a.RevokeGuest(ctx, g)
}
