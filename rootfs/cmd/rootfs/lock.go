package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
)

const lockHelp = `Lock finds the packages that a recipe names, with the libraries that their
programs can need, in the archives that apt on this machine is configured with, and
writes each with its version and SHA-256 into a file. A build takes nothing else.

The lists are those that apt fetched last (apt-get update). Their signatures are
checked again, with the distribution's keyring; an archive that it did not sign is
left out.

A lock stays good as long as the packages are to be had: archives drop a version
when the next one comes. What was fetched once stays in the cache of 'build'.`

// keyrings are where distributions keep the keys of their archives.
var keyrings = []string{"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"}

func (c *cli) lockCommand() *cobra.Command {
	var recipeFile, out, keyring string
	cmd := &cobra.Command{
		Use:     "lock --recipe FILE --out FILE",
		Short:   "Pin the packages that an image is built from",
		Long:    lockHelp,
		Example: `  rootfs lock --recipe rootfs/recipes/guest.toml --out guest.lock`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.lock(cmd.Context(), recipeFile, out, keyring)
		},
	}
	cmd.Flags().StringVar(&recipeFile, "recipe", "", "`FILE` that says what the image is made of")
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write the lock to")
	cmd.Flags().StringVar(&keyring, "keyring", "", "`FILE` with the OpenPGP keys of the archives (default that of Debian or Ubuntu, where it is installed)")
	_ = cmd.MarkFlagRequired("recipe")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func (c *cli) lock(ctx context.Context, recipeFile, out, keyring string) error {
	r, err := readRecipe(recipeFile)
	if err != nil {
		return err
	}
	keys, err := readKeyring(keyring)
	if err != nil {
		return err
	}
	m := archive.Machine{Keys: keys, Now: time.Now, Warn: func(err error) { c.say("%v", err) }}
	index, err := m.Index(ctx, "amd64")
	if err != nil {
		return err
	}
	l, err := lock.Make(r, index)
	if err != nil {
		return fmt.Errorf("%s: %w", recipeFile, err)
	}
	raw, err := l.Marshal()
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, raw, 0o644); err != nil {
		return err
	}
	c.say("%s pins %d packages, with the kernel %s", out, len(l.Package), l.Kernel)
	return nil
}

func readRecipe(name string) (*recipe.Recipe, error) {
	raw, err := readFile(name, recipe.MaxSize)
	if err != nil {
		return nil, err
	}
	r, err := recipe.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// maxKeyring bounds a keyring, in bytes.
const maxKeyring = 4 << 20

func readKeyring(name string) (*archive.Keyring, error) {
	names := keyrings
	if name != "" {
		names = []string{name}
	}
	for _, n := range names {
		raw, err := readFile(n, maxKeyring)
		if errors.Is(err, os.ErrNotExist) && name == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		keys, err := archive.ReadKeyring(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		return keys, nil
	}
	return nil, fmt.Errorf("no keyring of a distribution is installed here (looked for %v): name one with --keyring", names)
}
