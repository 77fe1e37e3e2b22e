package ctl

import (
	"context"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	var from, to int64
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|- | policy KIND/ID --from N [--to M]",
		Short: "Show what apply would change, or what changed between versions of a policy",
		Long: `Show what apply would change, as a unified diff from the broker's objects to the
documents. The exit code is 0 if nothing would change and 7 if something would.

The value of a resource cannot be read back: a resource differs if it is absent
or has another size, and otherwise a message says that nobody can tell.

With a policy's name it shows what lies between two of its versions; without
--to the second is the version in force.`,
		Example: `  kbsctl diff -f policies/
  kbsctl diff -f refvalues.yaml || kbsctl apply -f refvalues.yaml
  kbsctl diff policy resource/resource-policy --from 3 --to 5`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return c.diffNamed(cmd, args, from, to)
			}
			if len(files) == 0 {
				return usagef("diff: name documents with -f, or a policy").hint("%s --help", cmd.CommandPath())
			}
			all, err := c.readManifests(files)
			if err != nil {
				return err
			}
			return c.diff(cmd.Context(), all)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`FILE` or directory of documents, or - for stdin (repeatable)")
	cmd.Flags().Int64Var(&from, "from", 0, "older `VERSION` of a policy")
	cmd.Flags().Int64Var(&to, "to", 0, "its newer `VERSION` (default: the one in force)")
	cmd.ValidArgsFunction = c.completeObjects(false)
	return cmd
}

// diffNamed compares versions of one named object. Only policies keep texts.
func (c *cli) diffNamed(cmd *cobra.Command, args []string, from, to int64) error {
	k, names, err := target(args)
	switch {
	case err != nil:
		return err
	case k.name != "policy" || len(names) != 1:
		return usagef("diff compares versions of one policy").hint("kbsctl diff policy KIND/ID --from N")
	case from <= 0:
		return usagef("diff policy: --from is missing").hint("kbsctl policy history %s", names[0])
	}
	return c.diffVersions(cmd.Context(), names[0], from, to)
}

func (c *cli) diff(ctx context.Context, all []manifest) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	different := false
	for i := range all {
		m := &all[i]
		live, desired, err := c.sides(ctx, a, m)
		if err != nil {
			return doing(err, "diff %s", m.target())
		}
		d := diff.Diff("broker/"+m.target(), live, "document/"+m.target(), desired)
		if len(d) == 0 {
			continue
		}
		different = true
		if err := c.printf("%s", clean(string(d))); err != nil {
			return err
		}
	}
	if different {
		return errDifferent
	}
	return nil
}

// sides returns an object as it is and as the document wants it. What is
// absent is empty.
func (c *cli) sides(ctx context.Context, a *admin.Client, m *manifest) (live, desired []byte, err error) {
	switch m.Kind {
	case docPolicy:
		return policySides(ctx, a, m)
	case docRefValue:
		return refValueSides(ctx, a, m)
	}
	return c.resourceSides(ctx, a, m)
}

func policySides(ctx context.Context, a *admin.Client, m *manifest) (live, desired []byte, err error) {
	want, err := m.policy()
	if err != nil {
		return nil, nil, err
	}
	if desired, err = differ(policyManifest(want)); err != nil {
		return nil, nil, err
	}
	have, err := a.Policy(ctx, want.Kind, want.ID)
	if none, err := absent(err); none || err != nil {
		return nil, desired, err
	}
	if have, err = atStage(ctx, a, have, want.Stage); err != nil || have.Rego == "" {
		return nil, desired, err
	}
	live, err = differ(policyManifest(have))
	return live, desired, err
}

func refValueSides(ctx context.Context, a *admin.Client, m *manifest) (live, desired []byte, err error) {
	want, err := m.refValue()
	if err != nil {
		return nil, nil, err
	}
	have, err := a.RefValue(ctx, want.Name)
	none, err := absent(err)
	if err != nil {
		return nil, nil, err
	}
	have = ownWord(have)
	if !none {
		if sameJSON(have.Value, want.Value) {
			have.Value = want.Value // spelled alike
		}
		if sameExpiry(have.Expires, want.Expires) {
			have.Expires = want.Expires
		}
		if live, err = differ(refValueManifest(have)); err != nil {
			return nil, nil, err
		}
	}
	desired, err = differ(refValueManifest(want))
	return live, desired, err
}
