package ctl

import (
	"context"
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Show what apply would change, as a unified diff from the broker's objects to the
documents. The exit code is 0 if nothing would change and 7 if something would.

The value of a resource cannot be read back: a resource differs if it is absent
or has another size, and otherwise a message says that nobody can tell.`,
		Example: `  kbsctl diff -f policies/
  kbsctl diff -f refvalues.yaml || kbsctl apply -f refvalues.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.readManifests(files)
			if err != nil {
				return err
			}
			return c.diff(cmd.Context(), all)
		},
	}
	fileFlag(cmd, &files)
	return cmd
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

func (c *cli) resourceSides(ctx context.Context, a *admin.Client, m *manifest) (live, desired []byte, err error) {
	path, err := resourcePath(m.Metadata.Name)
	if err != nil {
		return nil, nil, err
	}
	value, err := readSecret(m.path(m.Spec.ValueFile))
	if err != nil {
		return nil, nil, usagef("%s: %w", m.origin, err)
	}
	defer value.Destroy()
	text := func(n int) []byte { return fmt.Appendf(nil, "resource %s: %d bytes\n", path, n) }
	desired = text(value.Len())
	have, err := a.Resource(ctx, path)
	if none, err := absent(err); none || err != nil {
		return nil, desired, err
	}
	if have.Size == value.Len() {
		c.warnf("%s: the sizes agree; whether the values do cannot be told", m.target())
	}
	return text(have.Size), desired, nil
}
