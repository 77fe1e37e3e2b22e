package ctl

import (
	"crypto/rand"
	"path"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// kekSize is that of a key-encrypting key, in bytes: AES-256.
const kekSize = 32

const encryptLong = `Copy an image from SRC to DST and encrypt every layer, of all its platforms. Then
read it back and decrypt it, so that an image that nobody can open is found now.

The layers' keys are wrapped with a key-encrypting key that the broker keeps.
kbsctl makes it and stores it there, under a name of its own or that of --key; it
is never shown and never written to disk. The broker hands it out for this image
alone, to guests that name the digest of its manifest; --unbound leaves that away.
Whom else it wants to see, the broker's policies say: --policy installs one for
this key alone, from a file or from a template (kbsctl policy template list).
Nothing is released before the image is written, signed, and its policy in place.

--sign signs the image as image sign does, and holds the signature against the
key. --recipient lets others open it too, with keys of their own and no broker.

With --recipient alone, and no --key, --register or --policy, no broker is asked
and NO GUEST CAN OPEN THE IMAGE: only the recipients can, wherever they are and
without any evidence. image rekey --key adds a key of the broker later, with a
recipient's private key.

A key that is there already is not replaced unless --overwrite is given: images
that were encrypted with it could not be opened any more. With --kek-file the 32
bytes of that file are the key; --register stores them at the broker.`

// encryption is one `image encrypt`.
type encryption struct {
	src, dst  string
	key       string // as given, then a resource URI; empty: no broker
	path      string // repo/type/tag
	kekFile   string
	register  bool
	overwrite bool
	unbound   bool
	keys      string // where they travel
	others    []crypt.Recipient
	sign      string // file
	words     passwordFlags
	policy    string // file or template
	release   *releasePolicy
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
		Use:   "encrypt SRC --to DST",
		Short: "Encrypt an image so that only attested guests can open it",
		Long:  encryptLong,
		Example: `  kbsctl image encrypt reg.example/app:1 --to reg.example/app:1-enc --sign release.key
  kbsctl image encrypt reg.example/app:1 --to reg.example/app:1-enc --sign release.key --policy affirming -o manifest |
    kubectl apply -f -
  kbsctl image encrypt oci:build --to oci:shipped:1 --key kbs:///prod/image/app --kek-file kek.bin
  kbsctl image encrypt reg.example/app:1 --to reg.example/app:1-enc --recipient jwe:partner.pub`,
		Args: oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && e.dst == "" {
				e.dst = args[1]
			} else if len(args) == 2 || e.dst == "" {
				return usagef("where does the image go?").hint("--to DST")
			}
			e.src = args[0]
			var err error
			if e.others, err = to.read(cmd.Context(), c); err != nil {
				return err
			}
			if err := e.settle(); err != nil {
				return err
			}
			if e.unbound {
				c.warnf("WARNING: the key will open any image that is encrypted with it, not this one alone")
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
	f.StringVar(&e.key, "key", "", "`URI` of the key at the broker: kbs:///REPO/TYPE/TAG (default: kbs:///default/image-key/ and a new name)")
	f.StringVar(&e.kekFile, "kek-file", "", "`FILE` with the 32 bytes of the key")
	f.BoolVar(&e.register, "register", false, "store the key at the broker (the default without --key, and with --policy)")
	f.BoolVar(&e.unbound, "unbound", false, "let the broker release the key for any image")
	f.StringVar(&e.sign, "sign", "", "sign the image with the private key in this `FILE`, or with one that stays in a token, by its PKCS#11 URI")
	f.StringVar(&e.policy, "policy", "", "who gets the key: Rego `FILE` or name of a template, installed for this key alone")
	f.StringVar(&e.keys, "keys", "", "`WHERE` the wrapped keys travel: in the manifest (default), or beside it, in a referrer that only guests of this project read")
	_ = cmd.RegisterFlagCompletionFunc("keys", cobra.FixedCompletions([]string{"beside", "manifest"}, cobra.ShellCompDirectiveNoFileComp))
	e.words.add(cmd)
	overwriteFlag(cmd, &e.overwrite)
	to.add(cmd)
	platform.add(cmd, "all of them")
	e.progress.add(cmd)
	reg.add(cmd)
	return cmd
}

// settle completes what was given, and refuses what does not fit together.
func (e *encryption) settle() error {
	broker := e.key != "" || e.register || e.policy != "" || len(e.others) == 0
	switch {
	case e.key == "" && e.kekFile != "":
		return usagef("--kek-file needs --key, the name that guests ask for it by")
	case e.key == "" && broker:
		e.key, e.register = "kbs:///default/image-key/"+keyName(e.dst), true
	case e.policy != "":
		e.register = true
	}
	if broker && !e.register && e.kekFile == "" {
		return usagef("where does the key come from?").
			hint("--register makes one and stores it at the broker; --kek-file FILE uses your own")
	}
	if (e.overwrite || e.unbound) && !e.register {
		return usagef("--overwrite and --unbound are about --register")
	}
	if e.keys != "" && e.keys != string(ship.KeysBeside) && e.keys != string(ship.KeysInManifest) {
		return usagef("--keys %s: beside or manifest", e.keys)
	}
	if _, _, layout := registry.ParseLayout(e.dst); layout && e.sign != "" {
		return usagef("--sign: signatures are kept in registries; an OCI layout has no name to sign for")
	}
	var err error
	if e.key != "" {
		if e.path, err = resourcePath(e.key); err != nil {
			return err
		}
		e.key = "kbs:///" + e.path
	}
	e.release, err = readReleasePolicy(e.policy)
	return err
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// keyName makes a name for a key that no other has: the image's, and chance.
func keyName(dst string) string {
	name := path.Base(dst)
	if dir, _, ok := registry.ParseLayout(dst); ok {
		name = path.Base(dir)
	}
	name, _, _ = strings.Cut(name, "@")
	name = strings.TrimLeft(notInNames.ReplaceAllString(name, "-"), ".-")
	return name + "-" + strings.ToLower(rand.Text()[:8])
}

func (e encryption) kek() (secret.Bytes, error) {
	if e.kekFile == "" {
		return secret.Random(kekSize), nil
	}
	return readKEK(e.kekFile)
}
