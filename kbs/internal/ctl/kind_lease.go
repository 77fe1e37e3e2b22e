package ctl

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func leaseKind() kind {
	return kind{
		name: "lease", aliases: []string{"leases"},
		header: []string{"ID", "OBJECT", "VERSION", "GUEST", "PLATFORM", "STATE", "SINCE", "UNTIL"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			q := admin.LeaseQuery{Guest: o.guest, Claim: o.claim, State: api.LeaseActive}
			if o.all {
				q.State = ""
			}
			if o.resource != "" {
				q.Object = "resource/" + o.resource
			}
			all, err := a.Leases(ctx, q, 0)
			return listed(all, o, c.leaseObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			l, err := a.Lease(ctx, name)
			return c.leaseObject(l), err
		},
		schema: leaseSchema,
	}
}

const leaseSchema = `kind lease
  One object that was given to one guest. A guest is what its evidence shows: the
  same chip, software and start data are the same guest, whatever token it has.

  object     as in the audit log: resource/REPO/TYPE/TAG, or PLUGIN/PATH
  version    of the value that it got last
  since      when it got it first
  renewed    when it got it first with the token that it has
  until      when that token ends; a guest that comes back renews it
  state      active; ended, by time or because the resource is gone; revoked
  claims     what the evidence showed, as single values

  Leases are shown for a day after their end (--all): the guest may still have
  what it got. kbsctl revoke lease/ID keeps the object from the guest; kbsctl
  impact says what a bad chip or measurement has got.`

func (c *cli) leaseObject(l api.Lease) object {
	version := ""
	if l.Version != 0 {
		version = strconv.FormatInt(l.Version, 10)
	}
	return object{
		kind: "lease", name: l.ID, data: l,
		row: []string{l.ID, l.Object, version, l.Guest, l.Platform, string(l.State), age(l.Since, c.now()), age(l.Until, c.now())},
		describe: func(s *sheet) {
			s.line("lease", l.ID)
			s.line("object", l.Object)
			s.line("version", version)
			s.line("guest", l.Guest)
			s.line("platform", l.Platform)
			s.line("token", l.TokenID)
			s.line("since", stamp(l.Since, c.now()))
			s.line("renewed", stamp(l.Renewed, c.now()))
			s.line("until", stamp(l.Until, c.now()))
			s.line("state", string(l.State))
			s.line("reason", l.Reason)
			var lines []string
			for _, k := range slices.Sorted(maps.Keys(l.Claims)) {
				lines = append(lines, k+"  "+l.Claims[k])
			}
			s.line("claims", strings.Join(lines, "\n"))
			s.line("hint", "kbsctl revoke lease/"+l.ID)
		},
	}
}
