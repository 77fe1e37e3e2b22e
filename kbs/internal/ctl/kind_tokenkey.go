package ctl

import (
	"context"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func tokenKeyKind() kind {
	return kind{
		name: "tokenkey", aliases: []string{"tokenkeys", "tk"},
		header: []string{"KEY", "STATE", "SIGNS", "SINCE", "UNTIL"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.TokenKeys(ctx)
			return listed(all.Items, o, c.tokenKeyObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, id string) (object, error) {
			all, err := a.TokenKeys(ctx)
			if err != nil {
				return object{}, err
			}
			for _, k := range all.Items {
				if k.ID == id {
					return c.tokenKeyObject(k), nil
				}
			}
			return object{}, fault.Newf(fault.NotFound, "there is no token key %q", id)
		},
		schema: tokenKeySchema,
	}
}

const tokenKeySchema = `kind tokenkey
  A key that signs attestation tokens, or that did. Verifiers elsewhere find all
  of them at /.well-known/jwks.json on the guests' listener.

  id       the kid of its tokens
  state    next      published, will sign after the next rotation
           current   signs
           retired   verifies until its last token has expired
           external  of a configured signer; verifies until its lease ends
  signs    whether the broker that answered signs with it
  since    when it got its state
  until    when it stops to verify`

func (c *cli) tokenKeyObject(k api.TokenKey) object {
	signs, until := "", time.Time{}
	if k.Signs {
		signs = "yes"
	}
	if k.Until != nil {
		until = *k.Until
	}
	return object{
		kind: "tokenkey", name: k.ID, data: k,
		row: []string{k.ID, k.State, signs, age(k.Since, c.now()), age(until, c.now())},
		describe: func(s *sheet) {
			s.line("key", k.ID)
			s.line("state", k.State)
			s.line("signs", signs)
			s.line("since", stamp(k.Since, c.now()))
			s.line("until", stamp(until, c.now()))
		},
	}
}
