package ctl

import (
	"context"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func refSetKind() kind {
	return kind{
		name: "refset", aliases: []string{"refsets"},
		header: []string{"ID", "VERSION", "VALUES", "SIGNER", "ENDS", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.RefSets(ctx)
			return listed(all, o, c.refSetObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, id string) (object, error) {
			set, err := a.RefSet(ctx, id)
			return c.refSetObject(set), err
		},
		delete: func(ctx context.Context, a *admin.Client, id string, want int64) error {
			return a.WithdrawRefSet(ctx, id, want)
		},
		schema: refSetSchema,
	}
}

const refSetSchema = `kind refset
  A document of reference values (CoRIM) that was registered as a whole:
  kbsctl create refset --from-file FILE, or kbsctl apply -f FILE.cbor. What it
  says counts beside what administrators and other documents say under the same
  names; kbsctl delete refset ID withdraws all of it. A document of the same id
  takes its place.

  A document is believed because a signer vouches for it (see: kbsctl explain
  signer), or because an administrator says why (--unsigned-reason).
  kbsctl refvalue sign makes one.`

func (c *cli) refSetObject(set api.RefSet) object {
	ends := "with its values"
	if !set.NotAfter.IsZero() {
		ends = age(set.NotAfter, c.now())
	}
	signer := set.Signer
	if signer == "" {
		signer = "(unsigned)"
	}
	return object{
		kind: "refset", name: set.ID, version: set.Version, data: set,
		row: []string{set.ID, strconv.FormatInt(set.Version, 10), strconv.Itoa(len(set.Names)), signer, ends, set.Author, age(set.Time, c.now())},
		describe: func(s *sheet) {
			s.line("refset", set.ID)
			s.line("version", strconv.FormatInt(set.Version, 10))
			s.line("signer", signer)
			s.line("because", set.Reason)
			s.line("document", "sha256:"+set.SHA256)
			s.line("profile", set.Profile)
			if !set.NotBefore.IsZero() {
				s.line("begins", stamp(set.NotBefore, c.now()))
			}
			if !set.NotAfter.IsZero() {
				s.line("ends", stamp(set.NotAfter, c.now()))
			}
			var from []string
			for _, p := range set.Provenance {
				from = append(from, p.Name+" sha256:"+p.SHA256)
			}
			s.block("made from", strings.Join(from, "\n"))
			s.line("author", set.Author)
			s.line("registered", stamp(set.Time, c.now()))
			s.block("values", strings.Join(set.Names, "\n"))
		},
	}
}

func signerKind() kind {
	return kind{
		name: "signer", aliases: []string{"signers"},
		header: []string{"NAME", "VERSION", "MAY VOUCH FOR", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Signers(ctx)
			return listed(all, o, c.signerObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			signer, err := a.Signer(ctx, name)
			return c.signerObject(signer), err
		},
		delete: func(ctx context.Context, a *admin.Client, name string, want int64) error {
			return a.DeleteSigner(ctx, name, want)
		},
		schema: signerSchema,
	}
}

const signerSchema = `kind signer
  Who may sign documents of reference values, with a public key (Ed25519, P-256
  or P-384) and the beginnings of the names that the signer may vouch for:
  kbsctl create signer NAME --key FILE --prefix PREFIX.

  Deleting a signer stops new documents; what it signed stays until the refset
  is deleted.`

func (c *cli) signerObject(v api.Signer) object {
	var names []string
	for _, p := range v.Prefixes {
		names = append(names, p+"*")
	}
	return object{
		kind: "signer", name: v.Name, version: v.Version, data: v,
		row: []string{v.Name, strconv.FormatInt(v.Version, 10), strings.Join(names, " "), v.Author, age(v.Time, c.now())},
		describe: func(s *sheet) {
			s.line("signer", v.Name)
			s.line("version", strconv.FormatInt(v.Version, 10))
			s.line("names", strings.Join(names, " "))
			s.line("author", v.Author)
			s.line("changed", stamp(v.Time, c.now()))
			s.block("public key", v.PublicKey)
		},
	}
}
