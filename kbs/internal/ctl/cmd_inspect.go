package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

func (c *cli) imageInspectCommand() *cobra.Command {
	var reg registryFlags
	var aside lookasideFlags
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "inspect REF",
		Short: "Show an image's layers, their keys, and its signatures",
		Long: `Show what an image says of itself: layers, the keys that open them, and
signatures, also among its referrers. Nothing of it has been verified; image
verify does that.`,
		Example: "  kbsctl image inspect reg.example/app:1-enc",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.registry(reg)
			if err != nil {
				return err
			}
			where, err := aside.read(cfg)
			if err != nil {
				return err
			}
			p, err := platform.read()
			if err != nil {
				return err
			}
			in, err := ship.Inspect(cmd.Context(), args[0], ship.InspectOptions{Registry: cfg, Lookaside: where, Platform: p})
			if err != nil {
				return doing(imageError(err), "inspect %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(in)
			}
			return c.showInspection(in)
		},
	}
	platform.add(cmd, "linux on this machine's architecture")
	reg.add(cmd)
	aside.add(cmd)
	return cmd
}

func (c *cli) showInspection(in *ship.Inspection) error {
	s := &sheet{w: c.stdio.Out}
	s.line("image", in.Reference)
	s.line("digest", in.Digest)
	s.line("index", in.Index)
	s.line("platform", in.Platform)
	s.line("command", strings.Join(append(append([]string{}, in.Config.Entrypoint...), in.Config.Cmd...), " "))
	s.line("user", in.Config.User)
	for i, l := range in.Layers {
		label := ""
		if i == 0 {
			label = "layers"
		}
		s.line(label, layerText(l))
	}
	if len(in.Signatures) == 0 {
		s.line("signatures", " none")
	}
	for _, sig := range in.Signatures {
		text := fmt.Sprintf("%s (%s) of %s as %s, by key %s, not verified", sig.Form, sig.Origin, sig.Digest, firstOf(sig.Name, "no name"), firstOf(sig.KeyHint, "unknown"))
		if sig.Attests != "" {
			text = fmt.Sprintf("%s (%s) attests %s of %s, by %s, not verified", sig.Form, sig.Origin, sig.Attests, sig.Digest, firstOf(sig.KeyHint, "an unknown key"))
		}
		if sig.Problem != "" {
			text = fmt.Sprintf("(%s) unreadable: %s", sig.Origin, sig.Problem)
		}
		s.line("signature", text)
	}
	return s.err
}

func layerText(l ship.LayerInfo) string {
	text := fmt.Sprintf("%s  %d bytes", l.Digest, l.Size)
	switch {
	case l.Problem != "":
		return text + "  unreadable: " + l.Problem
	case l.Encrypted:
		return text + "  encrypted for " + strings.Join(slices.Concat(l.Keys, l.Beside), ", ")
	}
	return text + "  plain"
}
