package ctl

import (
	"context"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func ticketKind() kind {
	return kind{
		name: "ticket", aliases: []string{"tickets"},
		header: []string{"TICKET", "CODE", "STAGE", "OBJECT", "SUBJECT", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Tickets(ctx, o.limit)
			return listed(all, o, c.ticketObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			t, err := fault.ParseTicket(name)
			if err != nil {
				return object{}, usagef("%q: %w", name, err)
			}
			e, err := a.Ticket(ctx, t)
			return c.ticketObject(e), err
		},
		schema: ticketSchema,
	}
}

const ticketSchema = `kind: Ticket
  Why something was refused. Guests and hosts see only the code and the ticket;
  kbsctl explain ticket/ID shows an administrator the rest. Tickets are made by
  the broker and cannot be changed.

  code, stage, time, platform, subject, object
  findings   the claims that were not as wanted: seen, wanted, closest
  policy     kind/id@version, with the rule and the line that decided
  cause      the private reason
  audit_entry  the entry of the audit log that records it`

func (c *cli) ticketObject(e api.Explanation) object {
	return object{
		kind: "ticket", name: e.Ticket, data: e,
		row:      []string{e.Ticket, e.Code, e.Stage, e.Object, e.Subject, age(e.Time, c.now())},
		describe: func(s *sheet) { c.explainTicket(s, e) },
	}
}

const maxWanted = 8 // wanted values that an explanation lists

// explainTicket is the whole reason for a person: first what and where, then
// the difference, then the rule, then the way on.
func (c *cli) explainTicket(s *sheet, e api.Explanation) {
	s.line("ticket", e.Ticket)
	s.line("code", e.Code)
	s.line("meaning", meaning(fault.Code(e.Code)))
	s.line("stage", e.Stage)
	s.line("time", stamp(e.Time, c.now()))
	s.line("platform", e.Platform)
	s.line("subject", e.Subject)
	s.line("object", e.Object)
	for _, f := range e.Findings {
		s.line("claim", f.Claim)
		s.line("  seen", orNothing(f.Seen))
		s.line("  wanted", wanted(f.Wanted))
		s.line("  closest", f.Nearest)
	}
	s.line("policy", e.Policy)
	s.line("rule", e.Rule)
	if e.Line > 0 {
		s.line("line", strconv.Itoa(e.Line))
	}
	s.line("cause", e.Cause)
	s.line("audit", fmt.Sprintf("entry %d", e.Audit))
	s.line("hint", ticketHint(e))
}

func orNothing(s string) string {
	if s == "" {
		return "(nothing)"
	}
	return s
}

func wanted(values []string) string {
	text := ""
	for i, v := range values {
		if i == maxWanted {
			return text + fmt.Sprintf("and %d more\n", len(values)-i)
		}
		text += v + "\n"
	}
	return text
}

func meaning(code fault.Code) string {
	for _, e := range fault.Table() {
		if e.Code == code {
			return e.Meaning
		}
	}
	return ""
}

// ticketHint names the next command, which depends on what decided.
func ticketHint(e api.Explanation) string {
	switch code := fault.Code(e.Code); {
	case code == fault.PolicyDenied && e.Policy != "":
		name, _, _ := cutLast(e.Policy, "@")
		return "kbsctl describe policy/" + name
	case code == fault.PolicyDenied && len(e.Findings) > 0, code == fault.InitDataMismatch:
		return "kbsctl list refvalues"
	case code == fault.PolicyError:
		return "mend the policy and apply it again; nothing is released until then"
	case code == fault.NotFound:
		return "kbsctl create resource PATH --from-file FILE, if it ought to exist"
	case code == fault.RootUntrusted:
		return "the broker's configuration names the roots it trusts; a simulated one must be named there"
	case code == fault.PlatformDisabled:
		return "the broker's configuration names the platforms it verifies"
	case code == fault.ImageUnsigned:
		return "kbsctl image sign REF --key FILE, or change the image policy's scope"
	}
	return ""
}
