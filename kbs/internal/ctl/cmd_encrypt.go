package ctl

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// kekSize is that of a key-encrypting key, in bytes: AES-256.
const kekSize = 32

const encryptLong = `Copy an image from SRC to DST and encrypt every layer. The layers' keys are
wrapped with a key-encrypting key that guests get from the broker at --key.

With --register, kbsctl makes that key and stores it at the broker; it is never
shown and never written to disk. The broker then hands it out for this image
alone, to guests that name the digest of its manifest; --unbound leaves that
away. A key that is there already is not replaced unless --overwrite is given:
images that were encrypted with it could not be opened any more. With --kek-file
the 32 bytes of that file are the key, and --register stores them.`

// encryption is one `image encrypt`.
type encryption struct {
	src, dst  string
	key       string // as given
	path      string // repo/type/tag
	kekFile   string
	register  bool
	overwrite bool
	unbound   bool
	keys      string // where they travel
	others    []crypt.Recipient
	registry  registry.Config
	platform  registry.Platform // zero: all that the source has
	progress  progressFlags
}

func (c *cli) imageEncryptCommand() *cobra.Command {
	var e encryption
	var reg registryFlags
	var to recipientFlags
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "encrypt SRC DST --key kbs:///REPO/TYPE/TAG (--register | --kek-file FILE)",
		Short: "Encrypt an image so that only attested guests can open it",
		Long:  encryptLong,
		Example: `  kbsctl image encrypt app:1 reg.example/app:1-enc --key kbs:///prod/image/app --register
  kbsctl image encrypt oci:build oci:shipped:1 --key kbs:///prod/image/app --kek-file kek.bin`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && e.dst == "" {
				e.dst = args[1]
			} else if len(args) == 2 || e.dst == "" {
				return usagef("where does the image go?").hint("--to DST, or DST after SRC")
			}
			e.src = args[0]
			var err error
			if e.path, err = resourcePath(e.key); err != nil {
				return err
			}
			if !e.register && e.kekFile == "" {
				return usagef("where does the key come from?").
					hint("--register makes one and stores it at the broker; --kek-file FILE uses your own")
			}
			if (e.overwrite || e.unbound) && !e.register {
				return usagef("--overwrite and --unbound are about --register")
			}
			if e.unbound {
				c.warnf("WARNING: the key will open any image that is encrypted with it, not this one alone")
			}
			if e.keys != "" && e.keys != string(ship.KeysBeside) && e.keys != string(ship.KeysInManifest) {
				return usagef("--keys %s: beside or manifest", e.keys)
			}
			if e.others, err = to.read(); err != nil {
				return err
			}
			if e.platform, err = platform.read(); err != nil {
				return err
			}
			if e.registry, err = c.registry(reg); err != nil {
				return err
			}
			return c.encrypt(cmd.Context(), e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.dst, "to", "", "`DST`: where the encrypted image goes")
	f.StringVar(&e.key, "key", "", "`URI` of the key at the broker: kbs:///REPO/TYPE/TAG")
	f.StringVar(&e.kekFile, "kek-file", "", "`file` with the 32 bytes of the key")
	f.BoolVar(&e.register, "register", false, "store the key at the broker")
	f.BoolVar(&e.unbound, "unbound", false, "let the broker release the key for any image")
	f.StringVar(&e.keys, "keys", "", "where the wrapped keys travel: manifest (default), or beside it, in a referrer that only guests of this project read")
	overwriteFlag(cmd, &e.overwrite)
	to.add(cmd)
	_ = cmd.MarkFlagRequired("key")
	platform.add(cmd, "all of them")
	e.progress.add(cmd)
	reg.add(cmd)
	return cmd
}

func (c *cli) encrypt(ctx context.Context, e encryption) error {
	kek, err := e.kek()
	if err != nil {
		return err
	}
	defer kek.Destroy()
	if !e.register {
		done, err := c.ship(ctx, e, kek)
		if err != nil {
			return err
		}
		return c.shipped(done)
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	there, err := a.Resource(ctx, e.path)
	none, err := absent(err)
	switch {
	case err != nil:
		return doing(err, "look for resource/%s", e.path)
	case none:
		return c.registerThenShip(ctx, a, e, kek)
	case !e.overwrite:
		return doing(existsAlready(there.Version), "register resource/%s", e.path)
	}
	// The new key takes the old one's place when it is stored, so that comes last.
	done, err := c.ship(ctx, e, kek)
	if err != nil {
		return err
	}
	about := e.bound(there.ResourceMeta, done)
	if _, err := a.PutResourceIf(ctx, e.path, there.Version, kek, &about); err != nil {
		c.warnf("%s was written, but its key is not at the broker: encrypt it again", e.dst)
		return doing(err, "register resource/%s", e.path)
	}
	return c.shipped(done)
}

// bound is what is said about the key of an image that was written.
func (e encryption) bound(about api.ResourceMeta, done ship.Result) api.ResourceMeta {
	about.Hold, about.Images = "", nil
	if !e.unbound {
		about.Images = done.Digests()
	}
	if about.Purpose == "" {
		about.Purpose = "opens a container image"
	}
	return about
}

// registerThenShip stores a new key before the image appears, so that no image
// is ever published that nobody can open. What the key is for is known only
// then; until it is bound, the broker releases it to nobody. If the image does
// not get out, the key goes too.
func (c *cli) registerThenShip(ctx context.Context, a *admin.Client, e encryption, kek secret.Bytes) error {
	held := api.ResourceMeta{Hold: "its image is being written"}
	info, err := a.PutResourceIf(ctx, e.path, 0, kek, &held)
	if err != nil {
		return doing(err, "register resource/%s", e.path)
	}
	done, err := c.ship(ctx, e, kek)
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err != nil {
		if derr := a.DeleteResource(rctx, e.path, info.Version); derr != nil {
			c.warnf("resource/%s was registered and could not be removed again; delete it", e.path)
		}
		return err
	}
	if _, err := a.SetResourceMeta(rctx, e.path, info.Version, e.bound(api.ResourceMeta{}, done)); err != nil {
		return (&failure{err: doing(err, "bind resource/%s to its image", e.path), exit: exitCode(err)}).
			hint("%s is written, and its key is held back: kbsctl set resource %s --image %s --hold \"\"", done.Reference, e.path, done.Digest)
	}
	return c.shipped(done)
}

func (c *cli) ship(ctx context.Context, e encryption, kek secret.Bytes) (ship.Result, error) {
	show := c.display(e.progress)
	defer show.Close()
	done, err := ship.Encrypt(ctx, e.src, e.dst, ship.EncryptOptions{
		KID: "kbs:///" + e.path, KEK: kek, Recipients: e.others, Keys: ship.KeyPlace(e.keys), Registry: e.registry, Platform: e.platform, Check: true,
		Progress: func(ev ship.Event) { show.Update(shipUpdate(ev)) },
	})
	if err != nil {
		return done, doing(imageError(err), "encrypt %s", e.src)
	}
	return done, nil
}

func (c *cli) shipped(done ship.Result) error {
	if c.flags.output != "table" {
		return c.printData(done)
	}
	return c.printf("%s\n", done.Reference)
}

func (e encryption) kek() (secret.Bytes, error) {
	if e.kekFile == "" {
		return secret.Random(kekSize), nil
	}
	return readKEK(e.kekFile)
}
