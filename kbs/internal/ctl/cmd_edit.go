package ctl

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
)

const editNote = `# Change the document, save it and leave the editor: then it is applied, unless
# somebody else has changed the object. An empty document changes nothing.
`

func (c *cli) editCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change an object in an editor",
		Long: `Open the document of a policy, of a reference value, or of what is said about a
resource, in the editor that KBS_EDITOR, VISUAL or EDITOR names (else vi), and
apply it as it is saved. What somebody else changed in the meantime is a
conflict (exit code 5). A document that is not accepted is kept, and the error
says where.`,
		Example: `  kbsctl edit policy resource/resource-policy
  EDITOR='code --wait' kbsctl edit refvalue/snp_launch_measurement
  kbsctl edit resource prod/image/app`,
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			if len(names) != 1 {
				return usagef("edit takes one object").hint("kbsctl edit %s NAME", k.name)
			}
			return c.edit(cmd.Context(), k, names[0])
		},
	}
}

func (c *cli) edit(ctx context.Context, k kind, name string) error {
	found, err := c.objects(ctx, k, []string{name}, listOptions{})
	if err != nil {
		return err
	}
	if found[0].manifest == nil {
		return usagef("a %s cannot be edited: it has no manifest", k.name).hint("kbsctl describe %s %s", k.name, name)
	}
	live := found[0].manifest()
	text, err := live.yaml()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kbsctl-edit-") // for its owner only
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "document.yaml")
	text = append([]byte(editNote), text...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	err = c.edited(ctx, live, path, text)
	if err == nil || ctx.Err() != nil {
		_ = os.RemoveAll(dir) // what is left of it is in nobody's way
		return err
	}
	c.warnf("your document is kept: kbsctl apply -f %s", path)
	return err
}

// edited runs the editor and applies what it left.
func (c *cli) edited(ctx context.Context, live *manifest, path string, before []byte) error {
	if err := c.runEditor(ctx, path); err != nil {
		return err
	}
	after, err := given.File(path, maxManifests)
	if err != nil {
		return err
	}
	all, err := parseManifests(after, path, ".")
	switch {
	case err != nil:
		return usagef("%w", err)
	case len(all) == 0 || bytes.Equal(before, after):
		return c.printf("%s %s\n", live.target(), unchanged)
	case len(all) > 1 || all[0].target() != live.target():
		return usagef("the document is about %s now, and was about %s", all[0].target(), live.target()).hint("kbsctl apply -f FILE")
	}
	if all[0].Metadata.Version == 0 { // whoever deletes the line means no other version
		all[0].Metadata.Version = live.Metadata.Version
	}
	return c.apply(ctx, all, false)
}

// runEditor leaves interrupts to the editor.
func (c *cli) runEditor(ctx context.Context, path string) error {
	editor := firstOf(c.env("KBS_EDITOR"), c.env("VISUAL"), c.env("EDITOR"), "vi")
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "sh", "-c", editor+` "$1"`, "sh", path) //nolint:gosec // the user's own choice, as everywhere
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdio.In, c.stdio.Out, c.stdio.Err
	if err := cmd.Run(); err != nil {
		return usagef("the editor %s: %w", editor, err)
	}
	return nil
}
