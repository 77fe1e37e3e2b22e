package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func refValueKind() kind {
	return kind{
		name: "refvalue", aliases: []string{"refvalues", "rv"},
		header: []string{"NAME", "VERSION", "VALUE", "EXPIRES", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.RefValues(ctx)
			return listed(all, o, c.refValueObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			v, err := a.RefValue(ctx, name)
			return c.refValueObject(v), err
		},
		delete: func(ctx context.Context, a *admin.Client, name string, want int64) error {
			return a.DeleteRefValue(ctx, name, want)
		},
		schema: refValueSchema,
	}
}

const refValueSchema = `kind: RefValue
  A value that good evidence is expected to show. Policies ask for it by name
  with query_reference_value; version_at_least(seen, least) compares versions
  with a value that is a minimum.

metadata:
  name      the name that policies use, for example snp_launch_measurement
  version   optional: apply only if this is still the version at the broker
spec:
  value     any JSON value; most policies want a list of strings
  expires   the time (RFC 3339) or day after which it no longer counts; without
            it, the broker lets the value live for a year`

func (c *cli) refValueObject(v api.RefValue) object {
	expires := "never"
	if !v.Expires.IsZero() {
		expires = age(v.Expires, c.now())
		if v.Expires.Before(c.now()) {
			expires = "expired " + expires + " ago"
		}
	}
	return object{
		kind: "refvalue", name: v.Name, version: v.Version, data: v,
		row:      []string{v.Name, strconv.FormatInt(v.Version, 10), shorten(string(v.Value), 32), expires, v.Author, age(v.Time, c.now())},
		manifest: func() *manifest { return refValueManifest(v) },
		describe: func(s *sheet) {
			s.line("refvalue", v.Name)
			s.line("version", strconv.FormatInt(v.Version, 10))
			s.line("author", v.Author)
			s.line("changed", stamp(v.Time, c.now()))
			if v.Expires.IsZero() {
				s.line("expires", "never")
			} else {
				s.line("expires", stamp(v.Expires, c.now()))
			}
			s.line("owner", v.Owner)
			s.line("note", v.Note)
			if !v.LastQueried.IsZero() {
				s.line("asked for", stamp(v.LastQueried, c.now()))
			}
			s.line("value", string(v.Value))
			if len(v.Sources) > 1 || len(v.Sources) == 1 && v.Sources[0].Set != "" {
				s.block("sources", c.sources(v))
			}
		},
	}
}

// sources tells who says what under a name.
func (c *cli) sources(v api.RefValue) string {
	var b strings.Builder
	for _, from := range v.Sources {
		who := "an administrator"
		if from.Set != "" {
			who = "refset/" + from.Set
			if from.Signer != "" {
				who += ", signed by " + from.Signer
			}
		}
		state := "until " + stamp(from.Expires, c.now())
		if !from.InForce {
			state = "not in force"
		}
		fmt.Fprintf(&b, "%s, %s: %s\n", who, state, from.Value)
	}
	return b.String()
}

// shorten keeps the start and the end of a text that is longer than n
// characters, which is where digests differ visibly.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-9]) + "…" + string(r[len(r)-8:])
}
