package ctl

import (
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/keyfile"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func (c *cli) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Encrypt, sign, check and pull images; no daemon is needed",
		Long: `Encrypt, sign, check and pull images. An image is named as container tools name it, or
as oci:DIR[:TAG] for an OCI layout on disk. A name without a host is that of an
image at docker.io: images that lie in docker or podman on this machine are not
seen (podman push app oci:DIR:TAG makes a layout). Registry credentials come from
--authfile, or from where docker and podman keep theirs.

From a plain image to a pod:

  kbsctl image keygen --out release
  kbsctl image encrypt reg.example/app:1 --to reg.example/app:1-enc --policy affirming --sign release.key
  kbsctl image verify reg.example/app:1-enc --policy policy.json
  kbsctl preflight reg.example/app:1-enc --image-policy policy.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.imageKeygenCommand(), c.imageEncryptCommand(), c.imageSignCommand(), c.imagePullCommand(),
		c.imageInspectCommand(), c.imageVerifyCommand(), c.imageRekeyCommand(), c.imageKeyProviderCommand())
	return cmd
}

// imageError gives what the image packages report its code. What is none of
// the image's or the registry's fault stays as it is: a mistake of the caller.
func imageError(err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	if _, ok := errors.AsType[*failure](err); ok { // a mistake that was named already
		return err
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok { // of a layout: no matter of the network
		if errors.Is(path, fs.ErrNotExist) {
			return fault.New(fault.NotFound, err)
		}
		return err
	}
	if errors.Is(err, registry.ErrBlocked) {
		return fault.New(fault.ImageBlocked, err)
	}
	digest, size := new(registry.DigestError), new(registry.SizeError)
	_, isURL := errors.AsType[*url.Error](err)
	var network net.Error
	var answer interface{ Temporary() bool } // an error status of the registry
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return fault.New(fault.NotFound, err)
	case errors.Is(err, registry.ErrMalformed):
		return fault.New(fault.ImageMalformed, err)
	case errors.As(err, &digest), errors.As(err, &size):
		return fault.New(fault.ImageCorrupt, err)
	case isURL, errors.As(err, &network), errors.As(err, &answer):
		return fault.New(fault.ImageUnavailable, err)
	}
	return err
}

func (c *cli) imageKeygenCommand() *cobra.Command {
	var out, password string
	cmd := &cobra.Command{
		Use:   "keygen --out PREFIX",
		Short: "Make a key pair for signing images",
		Long: `Make an ECDSA P-256 key pair: PREFIX.key (PEM PKCS#8, readable by you alone) and
PREFIX.pub (PEM), which the image policy names. With --password-file the private
key has a password, which is asked for wherever the key is used. Existing files are
not touched.`,
		Example: "  kbsctl image keygen --out release\n  kbsctl image keygen --out release --password-file word",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			private, public, err := ship.GenerateKey()
			if err != nil {
				return err
			}
			defer private.Destroy()
			if password != "" {
				word, err := readPassword(password)
				if err != nil {
					return err
				}
				defer word.Destroy()
				if private, err = keyfile.Lock(private, word); err != nil {
					return err
				}
			}
			if err := writeKeyPair(out, private, public); err != nil {
				return usagef("%w", err)
			}
			return c.printf("%s.key\n%s.pub\n", out, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "where to write: `PREFIX`.key and PREFIX.pub")
	cmd.Flags().StringVar(&password, "password-file", "", "`FILE` with a password for the private key, one line")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// writeKeyPair writes both files or none, and never over another.
func writeKeyPair(prefix string, private secret.Bytes, public []byte) error {
	if err := writeNew(prefix+".key", private.Reveal(), 0o600); err != nil {
		return err
	}
	if err := writeNew(prefix+".pub", public, 0o644); err != nil {
		return errors.Join(err, os.Remove(prefix+".key"))
	}
	return nil
}

func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// publicKind says which public thing a file holds in the place of a key; empty: none.
func publicKind(path string) string {
	doc, err := given.File(path, maxConfig)
	if err != nil {
		return ""
	}
	switch block, _ := pem.Decode(doc); {
	case block == nil:
		return ""
	case strings.HasSuffix(block.Type, "PUBLIC KEY"):
		return "public key"
	case block.Type == "CERTIFICATE":
		return "certificate"
	}
	return ""
}

// readKey reads a private key, which nobody else may be able to read.
func readKey(path string, limit int64) (secret.Bytes, error) {
	key, err := given.Secret(path, limit)
	if exposed, ok := errors.AsType[*given.Exposed](err); ok {
		if kind := publicKind(path); kind != "" {
			return key, usagef("%s holds a %s, which everybody may have: the private key is needed", path, kind)
		}
		return key, usagef("%s can be read by other users (mode %04o)", exposed.Name, exposed.Mode.Perm()).
			hint("chmod 600 %s, or make a new key: this one may have been read", path)
	}
	if err != nil {
		return key, usagef("%w", err)
	}
	return key, nil
}
