package ctl

import (
	"crypto"
	"crypto/ecdsa"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
)

const sealLong = `Print a sealed secret, signed by the pod's owner. It goes where Kubernetes wants
the value of a secret, in a variable or a file. The host can read it, and do
nothing with it: the agent in the guest checks the signature and gets the value.

With a name, it is the name of a secret: REPO/TYPE/TAG at the broker, or of a
secret at another provider (vault, aws, gcp, azure, aliyun). The value itself
is not needed here.

With --value, it is an envelope: the value, encrypted with a key of its own, and
that key encrypted with one that only guests can use: a resource of 32 bytes at
the broker (--key), or one that never leaves a provider's key service.

--settings says where the provider is, as its provider_settings; "credential" in
it names the resource at the broker with which guests log in there. What logs in
here, to encrypt, is --credential. An envelope is opened again before it is
printed, unless --encrypt-only says that this credential may not.

--kid is where guests find the public key: a resource at the broker. --jwk writes
that key to a new file, to be stored there once. Guests get the value only if
the broker's policy gives them all of these.`

const sealExample = `  kbsctl image keygen --out owner
  kbsctl seal prod/db/password --sign owner.key --kid kbs:///prod/signing/owner --jwk owner.jwk
  kbsctl create resource prod/signing/owner --from-file owner.jwk

  kbsctl seal --value password.txt --key-id kbs:///prod/kek/1 --key kek.bin --sign owner.key --kid kbs:///prod/signing/owner

  echo '{"endpoint_url":"https://vault.example:8200","credential":"kbs:///prod/vault/token"}' >vault.json
  kbsctl seal db/password --provider vault --settings vault.json --sign owner.key --kid kbs:///prod/signing/owner
  kbsctl seal --value password.txt --key-id guests --provider vault --settings vault.json --credential ci-token --sign owner.key --kid kbs:///prod/signing/owner`

// sealFlags say what is sealed, and with what.
type sealFlags struct {
	sign, kid, jwk                  string
	provider, settings, annotations string
	value, keyID, key, credential   string
	encryptOnly                     bool
}

func (c *cli) sealCommand() *cobra.Command {
	var f sealFlags
	cmd := &cobra.Command{
		Use:     "seal {NAME | --value FILE --key-id ID} --sign FILE --kid kbs:///REPO/TYPE/TAG",
		Short:   "Sign the name of a secret, or encrypt one, for a pod's variable or file",
		Long:    sealLong,
		Example: sealExample,
		Args: func(cmd *cobra.Command, args []string) error {
			want := 1
			if f.value != "" {
				want = 0 // what an envelope is called is its key's name
			}
			return exactArgs(want)(cmd, args)
		},
		ValidArgsFunction: c.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := c.seal(cmd.Context(), args, f)
			if err != nil {
				return err
			}
			return c.printf("%s\n", text)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.sign, "sign", "", "`FILE` with the owner's private key: PKCS#8 in PEM, of P-256")
	fl.StringVar(&f.kid, "kid", "", "`URI` of the public key at the broker")
	fl.StringVar(&f.jwk, "jwk", "", "write the public key to this new `FILE`")
	fl.StringVar(&f.provider, "provider", providerKBS, "`PROVIDER` that has the secret, or the key of an envelope: kbs, vault, aws, gcp, azure or aliyun")
	fl.StringVar(&f.settings, "settings", "", "JSON `FILE` with provider_settings")
	fl.StringVar(&f.annotations, "annotations", "", "JSON `FILE` with annotations: what else finds a secret by name")
	fl.StringVar(&f.value, "value", "", "encrypt the value in this `FILE`, or - for stdin")
	fl.StringVar(&f.keyID, "key-id", "", "`ID` of the key that opens an envelope: a resource's URI, or the provider's name for it")
	fl.StringVar(&f.key, "key", "", "`FILE` with the 32 bytes of the key at the broker")
	fl.StringVar(&f.credential, "credential", "", "`FILE` with what logs in at the provider from here")
	fl.BoolVar(&f.encryptOnly, "encrypt-only", false, "do not see whether the provider opens the envelope: the credential may only encrypt")
	for _, name := range []string{"sign", "kid"} {
		_ = cmd.MarkFlagRequired(name)
	}
	_ = cmd.RegisterFlagCompletionFunc("provider", cobra.FixedCompletions(
		[]string{providerKBS, "vault", "aws", "gcp", "azure", "aliyun"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// signingKey reads the owner's key.
func signingKey(file string) (*ecdsa.PrivateKey, error) {
	signer, err := readSigner(file)
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, usagef("--sign %s: sealed secrets are signed with a key of P-256", file)
	}
	return key, nil
}

// writeJWK writes the public key, if that is wanted.
func writeJWK(file, kid string, key *ecdsa.PrivateKey) error {
	if file == "" {
		return nil
	}
	raw, err := sealed.PublicJWK(&key.PublicKey, kid)
	if err != nil {
		return err
	}
	return writeNew(file, raw, 0o644)
}

// readSigner reads a private key from a file that nobody else can read.
func readSigner(path string) (crypto.Signer, error) {
	doc, err := readKey(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	defer doc.Destroy()
	signer, err := ship.ParsePrivateKey(doc)
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return signer, nil
}
