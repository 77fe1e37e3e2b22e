package main

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/prove"
)

const verifyHelp = `Verify computes everything again from the files of an image and compares it with
the documents beside it: the digests of all files and the signature over them;
that the initramfs, and the root under dm-verity, hold what the manifest lists and
nothing else, no shell or set-user-ID file among it; that every block of a root
leads to the root hash in the command line; and that guests of these files measure
to what the signed reference values say.

It needs the public key of whoever built the image, and nothing else: no network, no
package, no machine like the guest's. Exit code 3 means that something is not as it
should be; all of it is told.`

// invalid is an image that is not what it should be.
type invalid struct{ error }

// Exit is the command's exit code.
func (invalid) Exit() int { return fault.ExitEvidence }

func (c *cli) verifyCommand() *cobra.Command {
	var key string
	var unsigned bool
	cmd := &cobra.Command{
		Use:     "verify DIR --key FILE",
		Short:   "Prove an image against the documents beside it",
		Long:    verifyHelp,
		Example: `  rootfs verify image --key release.pub`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" && !unsigned {
				return errors.New("--key is missing: the public key of whoever built the image (--insecure-no-key looks at all but the signatures)")
			}
			var public crypto.PublicKey
			if key != "" {
				var err error
				if public, err = given.PublicKey(key); err != nil {
					return err
				}
			}
			image, err := openImage(args[0])
			if err != nil {
				return err
			}
			return c.report(image.Run(cmd.Context(), public))
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "`FILE` with the public key of whoever built the image, in PEM")
	cmd.Flags().BoolVar(&unsigned, "insecure-no-key", false, "do not check whose image it is")
	cmd.MarkFlagsMutuallyExclusive("key", "insecure-no-key")
	return cmd
}

func (c *cli) report(checks []prove.Check) error {
	failed := 0
	for _, check := range checks {
		mark, says := "ok  ", check.Says
		if check.Err != nil {
			mark, says = "FAIL", check.Err.Error()
			failed++
		}
		if _, err := fmt.Fprintf(c.out, "%s  %s: %s\n", mark, check.Name, says); err != nil {
			return err
		}
	}
	if failed > 0 {
		return invalid{fmt.Errorf("%d of %d checks failed: this is not the image that its documents tell of", failed, len(checks))}
	}
	return nil
}

// maxImageFile bounds a file of an image, in bytes.
const maxImageFile = 4 << 30

// openImage reads the files of a directory, and none below it.
func openImage(dir string) (*prove.Image, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return nil, fmt.Errorf("%s: an image has regular files only", filepath.Join(dir, e.Name()))
		}
		if files[e.Name()], err = given.File(filepath.Join(dir, e.Name()), maxImageFile); err != nil {
			return nil, err
		}
	}
	image, err := prove.Open(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return image, nil
}
