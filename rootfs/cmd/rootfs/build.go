package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/fetch"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/ownkernel"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/publish"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
)

const buildHelp = `Build makes an image from a recipe, the lock that pins its packages, and the
agent. Packages are fetched into the cache and checked against the lock whenever
they are used; with all of them there, no network is needed.

Forms:
  initrd   vmlinuz, initrd.img, cmdline: everything is in the initramfs
  verity   and rootfs.img, kernel_verity_params: the root is a disk, of which the
           kernel checks every block. As the Kata runtime takes it
  uki      guest.efi, cmdline: the initrd form as one file that a firmware starts
  disk     disk.img, guest.efi, cmdline: that file in the EFI partition of a disk
  verity-disk  the same with the root in partitions of that disk, under dm-verity

Beside the image it writes what others need to believe it:

  manifest.json         every file in the image, and the packages it was taken from
  sbom.spdx.json, sbom.cdx.json   what the image is made of
  prediction-*.json     what guests measure to, for each firmware (firmware-*.fd)
                        and each shape of machine: see 'measure predict'
  refvalues.cbor        the same as one signed document, for 'kbsctl apply -f'
  provenance.dsse.json  how all of this was made, signed (in-toto, SLSA)
  SHA256SUMS

The recipe names firmware and machines; --firmware adds one, and --vcpus, --memory
and --cpu take the place of the recipe's. With an Ed25519 key two builds are the
same to the byte; the signature of a document by an EC key is another each time.

With --secureboot-key and --secureboot-cert the file that a firmware starts is signed
for Secure Boot. PCR 7 is what the keys of the machine make of it, and PCR 4 has
less where they are enforced: both are predicted if --secureboot-variables has the
keys, to the byte, and not otherwise.`

type buildFlags struct {
	recipe, lock, agent, out, cache, form, extra string
	publishFlags
	secureBoot secureBootFlags
}

func (c *cli) buildCommand() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build --recipe FILE --lock FILE --agent FILE --key FILE --out DIR",
		Short: "Make an image, and the documents that vouch for it",
		Long:  buildHelp,
		Example: `  rootfs build --recipe rootfs/recipes/guest.toml --lock guest.lock --agent bin/guest-agent \
      --key release.key --out image
  kbsctl apply -f image/refvalues.cbor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.build(cmd.Context(), f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.recipe, "recipe", "", "`FILE` that says what the image is made of")
	s.StringVar(&f.lock, "lock", "", "`FILE` that 'rootfs lock' wrote")
	s.StringVar(&f.agent, "agent", "", "`FILE` with the static guest-agent, which becomes PID 1")
	s.StringVar(&f.out, "out", "", "`DIR` to write the image to; one that is there is replaced")
	s.StringVar(&f.cache, "cache", "", "`DIR` to keep packages in (default rootfs in the user's cache)")
	s.StringVar(&f.form, "form", string(build.Initrd), "`FORM` of the image: initrd, verity, uki, disk or verity-disk")
	s.StringVar(&f.extra, "append", "", "`TEXT` to put behind the command line of the recipe")
	for _, name := range []string{"recipe", "lock", "agent", "out"} {
		_ = cmd.MarkFlagRequired(name)
	}
	f.add(cmd)
	f.secureBoot.add(cmd)
	return cmd
}

// maxAgent bounds the agent, in bytes.
const maxAgent = 512 << 20

func (c *cli) build(ctx context.Context, f buildFlags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if o.Keys, err = f.secureBoot.keys(); err != nil {
		return err
	}
	in, err := c.buildInputs(f)
	if err != nil {
		return err
	}
	cache, err := openCache(ctx, f.cache)
	if err != nil {
		return err
	}
	image, err := build.Make(ctx, in, cache)
	if err != nil {
		return err
	}
	if err := f.complete(ctx, &o, in, cache); err != nil {
		return err
	}
	files, err := publish.Files(in, image, o)
	if err != nil {
		return err
	}
	if err := writeImage(f.out, files); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(image.Files)) {
		c.say("%s: %d bytes", filepath.Join(f.out, name), len(image.Files[name]))
	}
	if o.Key == nil {
		c.say("UNSIGNED, as --insecure-unsigned asked for: nobody but you can tell that this image is yours")
	}
	return nil
}

func (c *cli) buildInputs(f buildFlags) (in build.Inputs, err error) {
	in.Form = build.Form(f.form)
	if in.RecipeText, err = given.File(f.recipe, recipe.MaxSize); err != nil {
		return in, err
	}
	if in.Recipe, err = recipe.Parse(in.RecipeText); err != nil {
		return in, fmt.Errorf("%s: %w", f.recipe, err)
	}
	if err := in.Recipe.Append(f.extra); err != nil {
		return in, fmt.Errorf("--append: %w", err)
	}
	raw, err := given.File(f.lock, lock.MaxSize)
	if err != nil {
		return in, fmt.Errorf("%w (make it with: rootfs lock --recipe %s --out %s)", err, f.recipe, f.lock)
	}
	if in.Lock, err = lock.Parse(raw); err != nil {
		return in, fmt.Errorf("%s: %w", f.lock, err)
	}
	if in.Kernel, err = ownKernel(f.recipe, in.Recipe); err != nil {
		return in, err
	}
	if in.Created, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return in, err
	}
	if in.SecureBoot, err = f.secureBoot.signer(); err != nil {
		return in, err
	}
	in.Agent, err = given.File(f.agent, maxAgent)
	return in, err
}

// ownKernel reads the kernel that a recipe names as a file; nil where it is from a
// package.
func ownKernel(recipeFile string, r *recipe.Recipe) (*ownkernel.Kernel, error) {
	if r.Kernel.File == "" {
		return nil, nil
	}
	return ownkernel.Read(beside(recipeFile, r.Kernel.File), beside(recipeFile, r.Kernel.Directory))
}

// beside is where a file is that a recipe names.
func beside(recipeFile, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(recipeFile), name)
}

// sourceDate reads the time that reproducible builds say they were made at.
func sourceDate(s string) (time.Time, error) {
	if s == "" {
		return time.Unix(0, 0), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH=%q is no number of seconds", s)
	}
	return time.Unix(n, 0), nil
}

func openCache(ctx context.Context, dir string) (*fetch.Cache, error) {
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("--cache is not given: %w", err)
		}
		dir = filepath.Join(user, "rootfs")
	}
	client, err := downloads(ctx)
	return &fetch.Cache{Dir: dir, Client: client}, err
}

// downloads is a client that reaches archives as apt on this machine does.
func downloads(ctx context.Context) (*http.Client, error) {
	proxy, err := fetch.MachineProxy(ctx)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = proxy
	return &http.Client{Transport: transport}, nil
}

// writeImage puts the files into a new directory, and that in the place of the
// old one once it is whole.
func writeImage(dir string, files map[string][]byte) (err error) {
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for name, content := range files {
		if strings.ContainsRune(name, '/') {
			return fmt.Errorf("a file of an image is called %q", name)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := removeOld(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// removeOld removes an image, and nothing else.
func removeOld(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, build.FileCmdline)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s is no image, and is not replaced", dir)
	}
	return os.RemoveAll(dir)
}
