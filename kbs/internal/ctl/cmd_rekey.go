package ctl

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const rekeyLong = `Wrap the keys of an encrypted image for other recipients, for every platform that
it has. The layers stay as they are and none is downloaded. Something must open the
keys of now: a private key, a key-encrypting key in a file, or the agent of the
guest that kbsctl runs in. The broker gives keys to attested guests alone, never to
an administrator.

Keys that travel beside the image, in a referrer, are replaced there, and digest
and signatures stay. Keys in its manifest are wrapped again in the manifest: its
digest changes, and that of the index above it, and it has to be signed again.
--keys beside leaves such an image as it is and puts the new keys beside it. Only
guests of this project look there.

--remove leaves out one who could open the image before, --replace all of them. To
rotate a key, do both at once: --key NEW --register --remove OLD. That takes nothing
away from whoever has opened the image already, or kept a copy of its manifest.`

// rekeying is one `image rekey`.
type rekeying struct {
	ref      string
	key      string // as given
	kekFile  string
	register bool
	options  ship.RekeyOptions
}

func (c *cli) imageRekeyCommand() *cobra.Command {
	var r rekeying
	var reg registryFlags
	var to recipientFlags
	var with openFlags
	var platform platformFlag
	cmd := &cobra.Command{
		Use:   "rekey REF (--recipient KIND:FILE | --key URI --register | --remove READER) (--with-key FILE | --with-kek URI=FILE)",
		Short: "Add, remove or rotate who can open an encrypted image",
		Long:  rekeyLong,
		Example: `  kbsctl image rekey reg.example/app:1-enc --recipient jwe:partner.pub --with-key owner.key
  kbsctl image rekey reg.example/app:1-enc --key kbs:///prod/image/app-2 --register --remove kbs:///prod/image/app --with-key owner.key
  kbsctl image rekey reg.example/app:1-enc --remove kbs:///prod/image/app
  kbsctl image rekey reg.example/app:1-enc --recipient jwe:owner.pub --replace --keys beside --with-key owner.key`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.ref = args[0]
			var err error
			if r.options.Recipients, err = to.read(cmd.Context(), c); err != nil {
				return err
			}
			comes := r.key != "" || len(r.options.Recipients) > 0
			if !comes && len(r.options.Remove) == 0 && !r.register && r.kekFile == "" {
				return usagef("who shall be able to open the image?").hint("--recipient jwe:FILE, or --key kbs:///REPO/TYPE/TAG --register")
			}
			if r.options.Platform, err = platform.read(); err != nil {
				return err
			}
			if with.empty() && comes {
				return usagef("what opens the keys that the image has now?").
					hint("--with-key FILE, --with-kek URI=FILE, or --with-agent inside a guest")
			}
			chain, wipe, err := with.open(cmd.Context(), c)
			defer wipe()
			if err != nil {
				return err
			}
			r.options.Unwrapper = chain
			if r.options.Registry, err = c.registry(reg); err != nil {
				return err
			}
			return c.rekey(cmd.Context(), r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.key, "key", "", "`URI` of a key at the broker that shall open it: kbs:///REPO/TYPE/TAG")
	f.StringVar(&r.kekFile, "kek-file", "", "`FILE` with the 32 bytes of that key")
	f.BoolVar(&r.register, "register", false, "store that key at the broker, a new one without --kek-file")
	f.StringArrayVar(&r.options.Remove, "remove", nil, "leave out the `READER` with this key of a broker, or all of a kind (jwe, pkcs7, pkcs11), as image inspect calls them (repeatable)")
	f.BoolVar(&r.options.Replace, "replace", false, "leave those out who could open the image before")
	f.StringVar((*string)(&r.options.Keys), "keys", "", "`WHERE` the keys travel: beside or manifest (default: where they are)")
	_ = cmd.RegisterFlagCompletionFunc("keys", cobra.FixedCompletions([]string{"beside", "manifest"}, cobra.ShellCompDirectiveNoFileComp))
	platform.add(cmd, "all of them")
	to.add(cmd)
	with.add(cmd)
	reg.add(cmd)
	return cmd
}

func (c *cli) rekey(ctx context.Context, r rekeying) error {
	switch r.options.Keys {
	case ship.KeysWhereTheyAre, ship.KeysBeside, ship.KeysInManifest:
	default:
		return usagef("--keys %s: beside or manifest", r.options.Keys)
	}
	if r.key == "" {
		if r.register || r.kekFile != "" {
			return usagef("--register and --kek-file are about --key")
		}
		done, err := c.wrapAgain(ctx, r)
		if err != nil {
			return err
		}
		return c.rekeyed(done)
	}
	path, err := resourcePath(r.key)
	if err != nil {
		return err
	}
	if !r.register && r.kekFile == "" {
		return usagef("where does the key come from?").
			hint("--register makes one and stores it at the broker; --kek-file FILE uses your own")
	}
	kek := secret.Random(kekSize)
	if r.kekFile != "" {
		if kek, err = readKEK(r.kekFile); err != nil {
			return err
		}
	}
	defer kek.Destroy()
	broker, err := crypt.BrokerRecipient("kbs:///"+path, kek)
	if err != nil {
		return usagef("%w", err)
	}
	r.options.Recipients = append([]crypt.Recipient{broker}, r.options.Recipients...)
	var done ship.RekeyResult
	wrap := func() (api.ResourceMeta, error) {
		var err error
		done, err = c.wrapAgain(ctx, r)
		return api.ResourceMeta{Images: done.Digests(), Purpose: "opens a container image"}, err
	}
	if r.register {
		err = c.registerKey(ctx, path, kek, wrap)
	} else {
		_, err = wrap()
	}
	if err != nil {
		return err
	}
	return c.rekeyed(done)
}

// registerKey is holdThenBind with a client of its own.
func (c *cli) registerKey(ctx context.Context, path string, kek secret.Bytes, do func() (api.ResourceMeta, error)) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	return c.holdThenBind(ctx, a, path, kek, do)
}

func (c *cli) wrapAgain(ctx context.Context, r rekeying) (ship.RekeyResult, error) {
	done, err := ship.Rekey(ctx, r.ref, r.options)
	if err != nil {
		return done, doing(imageError(err), "rekey %s", r.ref)
	}
	return done, nil
}

// rekeyed says which of the two happened, for each platform.
func (c *cli) rekeyed(done ship.RekeyResult) error {
	for _, l := range done.Left {
		c.warnf("keys of before may still be read from %s", l)
	}
	var bound []string
	for _, i := range done.Images {
		if i.Digest != i.Before {
			bound = append(bound, i.Before)
		}
	}
	if done.Digest != done.Before {
		c.warnf("the image has another digest now: sign it again, and bind keys to it that were bound to %s", strings.Join(bound, ", "))
	}
	if c.flags.output != "table" {
		return c.printData(done)
	}
	if err := c.printf("%s\n", done.Reference); err != nil {
		return err
	}
	for _, i := range done.Images {
		head := ""
		if i.Platform != "" {
			head = i.Platform + ": "
		}
		text := "keys are beside it, in " + i.KeySet + "; digest and signatures stay"
		if i.Keys == ship.KeysInManifest {
			text = "keys are in its manifest, which was " + i.Before
		}
		if err := c.printf("%s%s\n", head, text); err != nil {
			return err
		}
	}
	return nil
}
