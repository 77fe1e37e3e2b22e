package ctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// policyKinds are the kinds of policies that the broker evaluates.
var policyKinds = []string{"attestation", "resource"}

func policyKind() kind {
	return kind{
		name: "policy", aliases: []string{"policies"},
		header: []string{"NAME", "VERSION", "IN FORCE", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Policies(ctx)
			return listed(all, o, c.policyObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			k, id, err := splitPolicy(name)
			if err != nil {
				return object{}, err
			}
			p, err := a.Policy(ctx, k, id)
			return c.policyObject(p), err
		},
		delete: func(ctx context.Context, a *admin.Client, name string) error {
			k, id, err := splitPolicy(name)
			if err != nil {
				return err
			}
			return a.DeletePolicy(ctx, k, id)
		},
		schema: policySchema,
	}
}

const policySchema = `kind: Policy
  A Rego v1 document that the broker evaluates. Names are KIND/ID; KIND is
  "attestation" (appraises evidence) or "resource" (decides who gets what).

metadata:
  name       KIND/ID: attestation/default_cpu or resource/resource-policy; a
             policy of another name is kept but never evaluated
  version    optional: apply only if this is still the version at the broker
spec:
  rego       the text
  regoFile   or the file that holds it, relative to this document`

// splitPolicy reads KIND/ID.
func splitPolicy(name string) (policyKind, id string, err error) {
	k, id, ok := strings.Cut(name, "/")
	if !ok || !slices.Contains(policyKinds, k) {
		return "", "", usagef("a policy's name is KIND/ID with KIND one of %s, not %q", strings.Join(policyKinds, ", "), name)
	}
	if _, err := policy.ParseName(k, id); err != nil {
		return "", "", usagef("%w", err)
	}
	return k, id, nil
}

func (c *cli) policyObject(p api.Policy) object {
	name := p.Kind + "/" + p.ID
	return object{
		kind: "policy", name: name, data: p,
		row:      []string{name, strconv.FormatInt(p.Version, 10), yesNo(p.InForce), p.Author, age(p.Time, c.now())},
		manifest: func() *manifest { return policyManifest(p) },
		describe: func(s *sheet) {
			s.line("policy", name)
			s.line("version", strconv.FormatInt(p.Version, 10))
			s.line("in force", yesNo(p.InForce))
			s.line("author", p.Author)
			s.line("changed", stamp(p.Time, c.now()))
			s.block("rego", p.Rego)
		},
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// warnIdle tells of a policy that was stored under a name which the broker
// never evaluates: its author may believe that it protects something.
func (c *cli) warnIdle(p api.Policy) {
	if !p.InForce {
		c.warnf("WARNING: the broker does not evaluate %s/%s; `kbsctl list policies` shows which are in force", p.Kind, p.ID)
	}
}

// listed narrows a list and makes objects of it.
func listed[T any](all []T, o listOptions, f func(T) object) []object {
	objects := make([]object, 0, len(all))
	for _, v := range all {
		obj := f(v)
		if !strings.HasPrefix(obj.name, o.prefix) {
			continue
		}
		if o.limit > 0 && len(objects) == o.limit {
			break
		}
		objects = append(objects, obj)
	}
	return objects
}

// doing says what was attempted, once.
func doing(err error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
