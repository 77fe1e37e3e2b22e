package ctl

import (
	"context"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func ticketGroupKind() kind {
	return kind{
		name: "ticketgroup", aliases: []string{"ticketgroups", "tg"},
		header: []string{"GROUP", "COUNT", "CODE", "STAGE", "CAUSE", "LAST", "NEWEST TICKET"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.TicketGroups(ctx, o.all)
			return listed(all, o, c.ticketGroupObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, id string) (object, error) {
			g, err := a.TicketGroup(ctx, id)
			return c.ticketGroupObject(g), err
		},
		schema: ticketGroupSchema,
	}
}

const ticketGroupSchema = `kind ticketgroup
  All refusals of one root cause, so that three hundred guests that fail for one
  reason are one line: the same code and stage, platform, policy and rule, and,
  where a policy denied, the same claims with the same values.

  count      how often
  first, last
  findings   the claims that were not as wanted
  silence    who does not want to hear of it, why, and until when: lists leave it
             out (but for --all), while its refusals go on being recorded; see
             kbsctl silence
  tickets    the newest few; kbsctl explain ticket/ID tells all about one`

func (c *cli) ticketGroupObject(g api.TicketGroup) object {
	newest := ""
	if len(g.Tickets) > 0 {
		newest = g.Tickets[0]
	}
	cause := g.Cause
	if len(g.Findings) > 0 {
		cause = g.Findings[0].Claim + " " + orNothing(g.Findings[0].Seen)
	}
	return object{
		kind: "ticketgroup", name: g.ID, data: g,
		row: []string{g.ID, strconv.FormatInt(g.Count, 10), g.Code, g.Stage, shorten(cause, 40), age(g.Last, c.now()), newest},
		describe: func(s *sheet) {
			s.line("group", g.ID)
			s.line("count", strconv.FormatInt(g.Count, 10))
			s.line("code", g.Code)
			s.line("meaning", meaning(fault.Code(g.Code)))
			s.line("stage", g.Stage)
			s.line("platform", g.Platform)
			s.line("first", stamp(g.First, c.now()))
			s.line("last", stamp(g.Last, c.now()))
			for _, f := range g.Findings {
				s.line("claim", f.Claim)
				s.line("  seen", orNothing(f.Seen))
				s.line("  wanted", wanted(f.Wanted))
				s.line("  closest", f.Nearest)
			}
			s.line("policy", g.Policy)
			s.line("rule", g.Rule)
			if g.Line > 0 {
				s.line("line", strconv.Itoa(g.Line))
			}
			s.line("cause", g.Cause)
			if q := g.Silence; q != nil {
				s.line("silenced", fmt.Sprintf("by %s until %s", q.Author, stamp(q.Until, c.now())))
				s.line("because", q.Reason)
			}
			for _, t := range g.Tickets {
				s.line("ticket", t)
			}
		},
	}
}
