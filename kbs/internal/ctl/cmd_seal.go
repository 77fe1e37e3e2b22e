package ctl

import (
	"crypto"
	"crypto/ecdsa"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
)

const sealLong = `Print a sealed secret: the name of a resource, signed by the pod's owner. It goes
where Kubernetes wants the value of a secret, in a variable or a file. The host
can read it, and do nothing with it: the agent in the guest checks the signature
and fetches the value from the broker. The value itself is not needed here.

--kid is where guests find the public key: a resource at the broker. --jwk writes
that key to a new file, to be stored there once. Guests get the value only if
the broker's policy gives them both.`

func (c *cli) sealCommand() *cobra.Command {
	var signKey, kid, jwk string
	cmd := &cobra.Command{
		Use:   "seal REPO/TYPE/TAG --sign FILE --kid kbs:///REPO/TYPE/TAG",
		Short: "Sign the name of a secret, for a pod's variable or file",
		Long:  sealLong,
		Example: `  kbsctl image keygen --out owner
  kbsctl seal prod/db/password --sign owner.key --kid kbs:///prod/signing/owner --jwk owner.jwk
  kbsctl create resource prod/signing/owner --from-file owner.jwk`,
		Args:              exactArgs(1),
		ValidArgsFunction: c.completeResources,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := resourcePath(args[0])
			if err != nil {
				return err
			}
			at, err := resourcePath(kid)
			if err != nil {
				return err
			}
			kid := "kbs:///" + at
			signer, err := readSigner(signKey)
			if err != nil {
				return err
			}
			key, ok := signer.(*ecdsa.PrivateKey)
			if !ok {
				return usagef("--sign %s: sealed secrets are signed with a key of P-256", signKey)
			}
			text, err := sealed.Seal("kbs", "kbs:///"+path, kid, key)
			if err != nil {
				return usagef("%w", err)
			}
			if jwk != "" {
				raw, err := sealed.PublicJWK(&key.PublicKey, kid)
				if err != nil {
					return err
				}
				if err := writeNew(jwk, raw, 0o644); err != nil {
					return err
				}
			}
			return c.printf("%s\n", text)
		},
	}
	f := cmd.Flags()
	f.StringVar(&signKey, "sign", "", "`file` with the owner's private key: PKCS#8 in PEM, of P-256")
	f.StringVar(&kid, "kid", "", "`URI` of the public key at the broker")
	f.StringVar(&jwk, "jwk", "", "write the public key to this new `file`")
	for _, name := range []string{"sign", "kid"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
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
