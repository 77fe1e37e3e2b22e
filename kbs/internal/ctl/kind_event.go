package ctl

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func eventKind() kind {
	return kind{
		name: "event", aliases: []string{"events"},
		header: []string{"INDEX", "KIND", "DECISION", "CODE", "TICKET", "OBJECT", "SUBJECT", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			if o.limit == 0 {
				return c.lastEvents(ctx, a, defaultEvents, true)
			}
			return c.lastEvents(ctx, a, int64(o.limit), false)
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			i, err := strconv.ParseInt(name, 10, 64)
			if err != nil || i < 0 {
				return object{}, usagef("an event's name is its index in the audit log, not %q", name)
			}
			found, err := c.events(ctx, a, i, i+1)
			if err != nil {
				return object{}, err
			}
			if len(found) == 0 {
				return object{}, fault.Newf(fault.NotFound, "the log has no entry %d", i)
			}
			return found[0], nil
		},
		schema: eventSchema,
	}
}

const eventSchema = `kind: Event
  One entry of the audit log: who got or changed what, and what was refused.
  Entries are written by the broker and cannot be changed; kbsctl audit verify
  proves that none was.

  index, time
  kind       attest, release, guest.refusal, policy.put, ...
  decision   allow, deny, error, change
  code, ticket, subject, object, details`

// defaultEvents is how many entries a list shows when nobody says.
const defaultEvents = 50

// lastEvents returns the newest entries, oldest first. Where nobody asked for a
// limit it says that there is more: a list that looks whole misleads.
func (c *cli) lastEvents(ctx context.Context, a *admin.Client, n int64, tell bool) ([]object, error) {
	end, err := a.AuditPage(ctx, admin.AuditQuery{}, math.MaxInt64, 1)
	if err != nil {
		return nil, err
	}
	size := end.Size
	if tell && size > n {
		c.warnf("the newest %d of %d entries; --limit shows more, audit export all", n, size)
	}
	return c.events(ctx, a, max(0, size-n), size)
}

func (c *cli) events(ctx context.Context, a *admin.Client, from, to int64) ([]object, error) {
	return c.collect(a.AuditEntries(ctx, from, to), 0)
}

func (c *cli) eventObject(e api.AuditEntry, raw json.RawMessage) object {
	return object{
		kind: "event", name: strconv.FormatInt(e.Index, 10), data: raw,
		row: []string{strconv.FormatInt(e.Index, 10), string(e.Kind), e.Decision, e.Code, e.Ticket, e.Object, e.Subject, age(e.Time, c.now())},
		describe: func(s *sheet) {
			s.line("event", strconv.FormatInt(e.Index, 10))
			s.line("time", stamp(e.Time, c.now()))
			s.line("kind", string(e.Kind))
			s.line("decision", e.Decision)
			s.line("code", e.Code)
			s.line("ticket", e.Ticket)
			s.line("subject", e.Subject)
			s.line("object", e.Object)
			var lines []string
			for k, v := range e.Details {
				lines = append(lines, k+"  "+v)
			}
			slices.Sort(lines)
			s.line("details", strings.Join(lines, "\n"))
			if e.Ticket != "" {
				s.line("hint", "kbsctl explain ticket/"+e.Ticket)
			}
		},
	}
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
