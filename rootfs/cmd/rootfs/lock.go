package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/archive"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
)

const lockHelp = `Lock finds the packages that a recipe names, with the libraries that their
programs can need, in the archives that apt on this machine is configured with, and
writes each with its version and SHA-256 into a file. A build takes nothing else. A
kernel that the recipe names as a file is pinned with its modules as they are now.

The lists are those that apt fetched last (apt-get update). Their signatures are
checked again, with the distribution's keyring; an archive that it did not sign is
left out. Where the recipe names archives ([[archive]]), apt is not asked: the lists
of these are fetched, and each must be signed by the keyring that the recipe pins.

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
	index, err := c.index(ctx, recipeFile, r, keyring)
	if err != nil {
		return err
	}
	own, err := ownKernel(recipeFile, r)
	if err != nil {
		return err
	}
	var pin *ownkernel.Pin
	if own != nil {
		pin = &own.Pin
	}
	l, err := lock.Make(r, index, pin)
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
	if l.Own != nil {
		c.say("%s pins %d packages, and the kernel %s in %s", out, len(l.Package), l.Own.Release, r.Kernel.File)
	} else {
		c.say("%s pins %d packages, with the kernel %s", out, len(l.Package), l.Kernel)
	}
	return nil
}

// architecture is that of every image.
const architecture = "amd64"

// index reads the lists of the archives that the recipe names, or else those of the
// machine.
func (c *cli) index(ctx context.Context, recipeFile string, r *recipe.Recipe, keyring string) (*archive.Index, error) {
	if len(r.Archive) == 0 {
		keys, err := readKeyring(keyring)
		if err != nil {
			return nil, err
		}
		m := archive.Machine{Keys: keys, Now: time.Now, Warn: func(err error) { c.say("%v", err) }}
		return m.Index(ctx, architecture)
	}
	if keyring != "" {
		return nil, errors.New("--keyring is for the archives of the machine: the recipe names its own, each with its keyring")
	}
	var suites []archive.Suite
	for _, a := range r.Archive {
		raw, err := given.File(beside(recipeFile, a.Keyring), maxKeyring)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != strings.ToLower(a.SHA256) {
			return nil, fmt.Errorf("%s: its SHA-256 is %x, and the recipe says %s", a.Keyring, sum, a.SHA256)
		}
		keys, err := archive.ReadKeyring(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Keyring, err)
		}
		suites = append(suites, archive.Suite{URL: a.URL, Name: a.Suite, Components: a.Components, Keys: keys, Expired: a.Expired})
		if a.Expired {
			c.say("%s %s: lists that are no longer valid are taken, as the recipe says", a.URL, a.Suite)
		}
	}
	client, err := downloads(ctx)
	if err != nil {
		return nil, err
	}
	return archive.Suites{Client: client, Now: time.Now}.Index(ctx, architecture, suites)
}

func readRecipe(name string) (*recipe.Recipe, error) {
	raw, err := given.File(name, recipe.MaxSize)
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
		raw, err := given.File(n, maxKeyring)
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
