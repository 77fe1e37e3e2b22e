package ctl

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

const rotateLong = `Put new values under another master key at once, and move all others to it while
the broker goes on serving. The former key is retired when nothing is under it
any more; until then the broker needs both.

Without --to, the broker makes the key: a file beside the first one, or a new
version in the Vault. Brokers that share a database have to be given the same
key file first, and --to names it.`

// lookEvery is how often --wait asks how far the broker has come.
const lookEvery = 500 * time.Millisecond

func (c *cli) rotateMasterKeyCommand() *cobra.Command {
	var to string
	var wait bool
	cmd := &cobra.Command{
		Use:   "masterkey [--to ID] [--wait]",
		Short: "Seal everything under another master key",
		Long:  rotateLong,
		Example: `  kbsctl rotate masterkey --wait
  kbsctl get masterkeys`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			state, err := a.RotateMasterKey(cmd.Context(), to)
			if err != nil {
				return doing(err, "rotate the master key")
			}
			if wait {
				if state, err = waitForWalk(cmd.Context(), a, state); err != nil {
					return doing(err, "wait for the move to %s", state.Current)
				}
			}
			if c.flags.output != "table" {
				return c.printData(state)
			}
			return c.printf("masterkey/%s current\n", state.Current)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`ID` of a key that the broker has")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when everything is under it")
	return cmd
}

// waitForWalk returns when everything is under the current key. Records that
// do not open are an error: something is wrong with the store.
func waitForWalk(ctx context.Context, a *admin.Client, state api.MasterKey) (api.MasterKey, error) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	to := state.Current
	for {
		w := state.Rewrap
		switch {
		case state.Current != to || w == nil || w.To != to:
			return state, fault.Newf(fault.Conflict, "somebody rotated to %s meanwhile", state.Current)
		case !w.Finished.IsZero() && w.Failed > 0:
			return state, (&failure{
				err:  fault.Newf(fault.Internal, "%d records cannot be opened under any key", w.Failed),
				exit: fault.ExitUnavailable,
			}).hint("kbsctl describe masterkey %s", to)
		case !w.Finished.IsZero():
			return state, nil
		}
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-t.C:
		}
		var err error
		if state, err = a.MasterKey(ctx); err != nil {
			return state, err
		}
	}
}
