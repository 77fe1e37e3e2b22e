package ctl

import (
	"context"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func guestRevocationKind() kind {
	list := func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
		all, err := a.GuestRevocations(ctx)
		return listed(all, o, c.guestRevocationObject), err
	}
	return kind{
		name: "guestrevocation", aliases: []string{"guestrevocations"},
		header: []string{"ID", "WHAT", "REASON", "AUTHOR", "AGE", "UNTIL"},
		list:   list,
		get:    oneOf("guestrevocation", list),
		delete: func(ctx context.Context, a *admin.Client, name string, _ int64) error {
			return a.ReinstateGuest(ctx, name)
		},
		schema: guestRevocationSchema,
	}
}

const guestRevocationSchema = `kind guestrevocation
  Guests that get nothing any more, although their tokens are genuine: the one
  that earned a token, which may attest again; all whose evidence shows a claim,
  which may not; or the guest of a lease, which does not get that one object. It
  counts at once, and within a second on the broker's other replicas.

  what    guest/TOKEN-ID, claim/PATH=VALUE or lease/ID
  until   when it ends; that of a token, with the token

  kbsctl revoke guest/TOKEN-ID | claim/PATH=VALUE | lease/ID; delete takes it back.`

func (c *cli) guestRevocationObject(r api.GuestRevocation) object {
	what := "guest/" + r.TokenID
	switch {
	case r.Claim != "":
		what = "claim/" + r.Claim + "=" + r.Value
	case r.Lease != "":
		what = "lease/" + r.Lease
	}
	return object{
		kind: "guestrevocation", name: r.ID, data: r,
		row: []string{r.ID, shorten(what, 48), r.Reason, r.Author, age(r.Time, c.now()), age(r.Until, c.now())},
		describe: func(s *sheet) {
			s.line("revoked", what)
			s.line("id", r.ID)
			s.line("reason", r.Reason)
			s.line("author", r.Author)
			s.line("time", stamp(r.Time, c.now()))
			if !r.Until.IsZero() {
				s.line("until", stamp(r.Until, c.now()))
			}
		},
	}
}
