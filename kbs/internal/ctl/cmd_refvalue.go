package ctl

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"
)

// maxKeyFile limits a PEM file with a key, in bytes.
const maxKeyFile = 64 << 10

func (c *cli) refValueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refvalue",
		Short: "Make documents of reference values that others can verify",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.refValueSignCommand())
	return cmd
}

func (c *cli) refValueSignCommand() *cobra.Command {
	var files []string
	var id, keyFile, keyID, to, begins, ends string
	cmd := &cobra.Command{
		Use:   "sign -f FILE --id ID --key KEY --to FILE",
		Short: "Write RefValue documents as one signed document (CoRIM)",
		Long: `Write the reference values of RefValue documents (YAML or JSON, as apply takes
them) as one document with a signature: CoRIM, signed with COSE. A broker that
trusts the signer registers it with kbsctl apply, whoever carries it there.

The key is PEM, PKCS#8: Ed25519, P-256 or P-384, for example that of kbsctl
image keygen. No broker is asked.`,
		Example: `  measure predict --image guest --cmdline @cmdline -o refvalue |
    kbsctl refvalue sign -f - --id guest-1.4.2 --key release.key --ends 2027-12-31 --to guest-1.4.2.cbor`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			doc, err := c.refDocument(files, id)
			if err != nil {
				return err
			}
			if doc.NotBefore, err = parseExpiry(begins); err != nil {
				return usagef("--begins: %w", err)
			}
			if doc.NotAfter, err = parseExpiry(ends); err != nil {
				return usagef("--ends: %w", err)
			}
			key, err := readSigner(keyFile)
			if err != nil {
				return usagef("%s: %w", keyFile, err)
			}
			raw, err := doc.Sign(key, keyID)
			if err != nil {
				return usagef("%w", err)
			}
			if to == "-" {
				_, err = c.stdio.Out.Write(raw)
				return err
			}
			return os.WriteFile(to, raw, 0o644) //nolint:gosec // a document for others to read
		},
	}
	fileFlag(cmd, &files)
	f := cmd.Flags()
	f.StringVar(&id, "id", "", "`NAME` of the document: the next one of that name takes its place")
	f.StringVar(&keyFile, "key", "", "`FILE` with the signer's private key")
	f.StringVar(&keyID, "key-id", "", "`NAME` of the signer at the broker, a hint for it")
	f.StringVar(&to, "to", "", "`FILE` to write, or - for stdout")
	f.StringVar(&begins, "begins", "", "`TIME` (RFC 3339) or day from whose end on the values count")
	f.StringVar(&ends, "ends", "", "`TIME` (RFC 3339) or day after which they count no more")
	for _, name := range []string{"id", "key", "to"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// refDocument joins RefValue documents into one.
func (c *cli) refDocument(files []string, id string) (refvalue.Document, error) {
	all, err := c.readManifests(files)
	if err != nil {
		return refvalue.Document{}, err
	}
	doc := refvalue.Document{ID: id}
	for i := range all {
		if all[i].Kind != docRefValue {
			return doc, usagef("%s: %s is no %s", all[i].origin, all[i].target(), docRefValue)
		}
		v, err := all[i].refValue()
		if err != nil {
			return doc, usagef("%s: %w", all[i].origin, err)
		}
		doc.Values = append(doc.Values, refvalue.Value{Name: v.Name, Value: v.Value})
		if !v.Expires.IsZero() && (doc.NotAfter.IsZero() || v.Expires.Before(doc.NotAfter)) {
			doc.NotAfter = v.Expires
		}
	}
	return doc, nil
}

func (c *cli) createRefSetCommand() *cobra.Command {
	var from, reason string
	cmd := &cobra.Command{
		Use:   "refset --from-file FILE",
		Short: "Register a document of reference values (CoRIM)",
		Example: `  kbsctl create refset --from-file guest-1.4.2.cbor
  kbsctl create refset --from-file vendor.corim --unsigned-reason "by courier, ticket OPS-417"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := given.File(from, refvalue.MaxSize)
			if err != nil {
				return usagef("%w", err)
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			set, err := a.RegisterRefSet(cmd.Context(), raw, reason)
			if err != nil {
				return doing(err, "register %s", from)
			}
			return c.made(c.refSetObject(set), set.Version > 1)
		},
	}
	fromFileFlag(cmd, &from)
	unsignedFlag(cmd, &reason)
	return cmd
}

func unsignedFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "unsigned-reason", "", "`REASON` to believe a document without a signature; stands in the audit log")
}

func (c *cli) createSignerCommand() *cobra.Command {
	var key string
	var prefixes []string
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "signer NAME --key FILE --prefix PREFIX",
		Short: "Trust a signer of reference values",
		Example: `  kbsctl create signer release --key release.pub --prefix snp_
  kbsctl create signer everything --key ci.pub --prefix ''`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(prefixes) == 0 {
				return usagef("a signer needs at least one --prefix").hint("--prefix '' lets it vouch for every name")
			}
			pem, err := given.File(key, maxKeyFile)
			if err != nil {
				return usagef("%w", err)
			}
			v := api.Signer{Name: args[0], PublicKey: string(pem), Prefixes: prefixes}
			if overwrite {
				v.Version = int64(store.Any)
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			stored, err := a.PutSigner(cmd.Context(), v)
			if err != nil {
				return doing(exists(err, overwrite), "create signer/%s", v.Name)
			}
			return c.made(c.signerObject(stored), overwrite)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "`FILE` with the public key or certificate (PEM)")
	cmd.Flags().StringArrayVar(&prefixes, "prefix", nil, "beginning of the `NAMES` that the signer may vouch for (repeatable)")
	_ = cmd.MarkFlagRequired("key")
	overwriteFlag(cmd, &overwrite)
	return cmd
}

// signedDocument reports whether apply is to take a file as a document of
// reference values and not as YAML or JSON.
func signedDocument(file string) bool {
	switch filepath.Ext(file) {
	case ".cbor", ".corim":
		return true
	}
	return false
}

// register has the broker judge documents, one after the other.
func (c *cli) register(ctx context.Context, files []string, reason string) error {
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	for _, f := range files {
		raw, err := given.File(f, refvalue.MaxSize)
		if err != nil {
			return usagef("%w", err)
		}
		set, err := a.RegisterRefSet(ctx, raw, reason)
		if err != nil {
			return doing(err, "apply %s", f)
		}
		what := created
		if set.Version > 1 {
			what = configured
		}
		if err := c.printf("refset/%s %s (%d values)\n", set.ID, what, len(set.Names)); err != nil {
			return err
		}
	}
	return nil
}

// ownWord is what an administrator says under a name, without what documents
// add to it: that is what apply can change.
func ownWord(v api.RefValue) api.RefValue {
	sources := v.Sources
	if len(sources) == 0 {
		return v
	}
	v.Sources, v.Value, v.Expires = nil, nil, time.Time{}
	for _, from := range sources {
		if from.Set == "" {
			v.Value, v.Expires = from.Value, from.Expires
		}
	}
	return v
}
