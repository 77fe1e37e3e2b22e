package ctl

import (
	"context"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func revocationKind() kind {
	list := func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
		all, err := a.Revocations(ctx)
		return listed(all, o, c.revocationObject), err
	}
	return kind{
		name: "revocation", aliases: []string{"revocations"},
		header: []string{"WHAT", "ISSUER", "REASON", "AUTHOR", "AGE", "UNTIL"},
		list:   list,
		get:    oneOf("revocation", list),
		schema: revocationSchema,
	}
}

const revocationSchema = `kind revocation
  An administrator's token that no longer counts, or all that a subject was given
  until then. It is forgotten when every such token has ended by itself.

  name    token/ID or subject/NAME
  issuer  who had given it

  kbsctl revoke token/ID | subject/NAME`

func (c *cli) revocationObject(r api.Revocation) object {
	name := "subject/" + r.Subject
	if r.TokenID != "" {
		name = "token/" + r.TokenID
	}
	return object{
		kind: "revocation", name: name, data: r,
		row: []string{name, r.Issuer, r.Reason, r.Author, age(r.Time, c.now()), age(r.Expires, c.now())},
		describe: func(s *sheet) {
			s.line("revoked", name)
			s.line("issuer", r.Issuer)
			s.line("reason", r.Reason)
			s.line("author", r.Author)
			s.line("time", stamp(r.Time, c.now()))
			s.line("until", stamp(r.Expires, c.now()))
		},
	}
}

// cutName splits KIND/NAME.
func cutName(s string) (kind, name string) {
	kind, name, _ = strings.Cut(s, "/")
	return kind, name
}
