package ctl

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
)

const signLong = `Sign what REF points to and push the signature beside it. It names the repository
and the digest, and carries the annotations: a policy can ask for them, and keep
out older images by a version ("atLeast"). A key can stay in a PKCS#11 token, for
every form: it is named by its URI, and kbs-pkcs11 has the token sign.

  tag       a signature under cosign's tag, which every verifier reads: cosign,
            podman, skopeo, CRI-O and the guests of other projects
  bundle    a Sigstore bundle 0.3 among the image's referrers, which cosign 3
            writes and reads by default
  notation  a JWS of the Notary Project among the referrers; wants --certificate,
            and a key of ECDSA or of RSA with 2048, 3072 or 4096 bits

Without --form it writes tag and bundle, so that old and new verifiers find what
they look for, and guests of this project count one key once. Signing again with
the same key changes nothing. No entry is made in a public log: cosign verifies
with --key FILE --insecure-ignore-tlog.

A policy that wants several signatures ("threshold") is satisfied by signing once
with each key; image verify says who has signed and who is missing.`

func (c *cli) imageSignCommand() *cobra.Command {
	var key, certificate string
	var forms []string
	var annotations map[string]string
	var words passwordFlags
	var reg registryFlags
	cmd := &cobra.Command{
		Use:   "sign REF --key FILE",
		Short: "Sign an image as cosign or Notation does",
		Long:  signLong,
		Example: `  kbsctl image sign reg.example/app:1-enc --key release.key
  kbsctl image sign reg.example/app:1-enc --key release.key --annotation version=1.4.0
  kbsctl image sign reg.example/app:1-enc --key 'pkcs11:token=release;object=2026?module-path=/usr/lib/softhsm/libsofthsm2.so'
  kbsctl image sign reg.example/app:1-enc --key shop.key --form notation --certificate shop-chain.pem`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := ship.SignOptions{Annotations: annotations}
			var err error
			if o.Forms, err = signForms(forms); err != nil {
				return err
			}
			if certificate != "" {
				if o.Certificates, err = given.File(certificate, maxConfig); err != nil {
					return usagef("--certificate: %w", err)
				}
			}
			if slices.Contains(o.Forms, ship.SignNotation) != (certificate != "") {
				return usagef("--form notation and --certificate belong together").
					hint("--form notation --certificate CHAIN.pem, the certificate of the key first and the root last")
			}
			signer, done, err := c.signer(cmd.Context(), key, words)
			if err != nil {
				return err
			}
			defer done()
			if o.Registry, err = c.registry(reg); err != nil {
				return err
			}
			signed, err := ship.SignWith(cmd.Context(), args[0], signer, o)
			if err != nil {
				return doing(imageError(err), "sign %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(signed)
			}
			return c.showSigned(signed)
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "`FILE` with the private key (PEM PKCS#8 or cosign's own form, with a password or without), or one that stays in a token, by its PKCS#11 URI")
	f.StringToStringVar(&annotations, "annotation", nil, "`NAME=VALUE` to sign besides (repeatable)")
	f.Lookup("annotation").DefValue = ""
	f.StringSliceVar(&forms, "form", nil, "`FORM` of the signature, of several if repeated: tag, bundle, notation (default: tag and bundle)")
	f.StringVar(&certificate, "certificate", "", "PEM `FILE` with the key's certificate and those above it, with the root, for --form notation")
	_ = cmd.RegisterFlagCompletionFunc("form", cobra.FixedCompletions(formNames(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagRequired("key")
	words.add(cmd)
	reg.add(cmd)
	return cmd
}

func formNames() (names []string) {
	for _, f := range ship.SignForms() {
		names = append(names, string(f))
	}
	return names
}

func signForms(names []string) (forms []ship.SignForm, err error) {
	for _, n := range names {
		if !slices.Contains(formNames(), n) {
			return nil, usagef("--form %s: %s", n, strings.Join(formNames(), ", "))
		}
		forms = append(forms, ship.SignForm(n))
	}
	return forms, nil
}

// showSigned prints one line for each signature.
func (c *cli) showSigned(done ship.SignResult) error {
	s := &sheet{w: c.stdio.Out}
	s.line("signed", done.Digest)
	s.line("by key", done.Key)
	for _, w := range done.Signatures {
		s.line(string(w.Form), w.Reference)
	}
	return s.err
}
