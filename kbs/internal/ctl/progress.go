package ctl

import (
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/progress"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

// progressFlags say whether a person wants to see how far it is.
type progressFlags struct{ quiet bool }

func (f *progressFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
}

// display shows progress on stderr.
func (c *cli) display(f progressFlags) *progress.Display {
	return progress.New(c.stdio.Err, progress.Options{Quiet: f.quiet, Now: c.now})
}

// shipUpdate is what a person sees of the events of package ship.
func shipUpdate(e ship.Event) progress.Update {
	u := progress.Update{
		Verb: "encrypt", Past: "encrypted", Item: e.Layer, Items: e.Layers, Name: e.Digest.String(), Bytes: e.Bytes, Total: e.Total, All: e.All,
		Done: e.Phase == ship.PhaseEncrypted || e.Phase == ship.PhaseChecked,
	}
	if e.Phase == ship.PhaseChecking || e.Phase == ship.PhaseChecked {
		u.Verb, u.Past = "check", "checked"
	}
	return u
}
