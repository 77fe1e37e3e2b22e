package ctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

// policyKinds are the kinds of policies that the broker evaluates.
var policyKinds = []string{"attestation", "resource"}

// writeStages are where a new version can go.
var writeStages = []string{api.StageEnforce, api.StageShadow, api.StageDraft}

func policyKind() kind {
	return kind{
		name: "policy", aliases: []string{"policies"},
		header: []string{"NAME", "VERSION", "STAGE", "IN FORCE", "SHADOW", "AUTHOR", "AGE"},
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
			o := c.policyObject(p)
			o.describe = func(s *sheet) { c.describePolicy(ctx, a, p, s) }
			return o, err
		},
		delete: func(ctx context.Context, a *admin.Client, name string, want int64) error {
			k, id, err := splitPolicy(name)
			if err != nil {
				return err
			}
			return a.DeletePolicy(ctx, k, id, want)
		},
		schema: policySchema,
	}
}

const policySchema = `kind: Policy
  A Rego v1 document that the broker evaluates. Names are KIND/ID; KIND is
  "attestation" (appraises evidence) or "resource" (decides who gets what).

metadata:
  name       KIND/ID. Of attestation policies the broker evaluates
             attestation/default_CLASS (cpu, gpu, switch, ppcie, ...) and
             attestation/SELECTOR_CLASS as its configuration selects. Of resource
             policies the longest matching name decides:
             resource/resource/REPO/TYPE/TAG, resource/resource/REPO/TYPE,
             resource/resource/REPO, resource/PLUGIN/PATH, and for all else
             resource/resource-policy. Any other is kept but never evaluated
  version    optional: apply only if this is still the version at the broker
spec:
  rego       the text
  regoFile   or the file that holds it, relative to this document
  stage      where the new version goes: enforce (default), shadow or draft;
             see kbsctl policy promote
  note       why, for the history`

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
		kind: "policy", name: name, version: p.Version, data: p,
		row: []string{
			name, strconv.FormatInt(p.Version, 10), p.Stage, yesNo(p.InForce), number(p.Shadow), p.Author, age(p.Time, c.now()),
		},
		manifest: func() *manifest {
			m := policyManifest(p)
			if slices.Contains([]string{api.StageShadow, api.StageDraft}, p.Stage) {
				m.Spec.Stage = p.Stage // or applying it would put it into force
			}
			return m
		},
	}
}

// number is empty for none.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// describePolicy also asks for what the listing leaves out: the versions, and
// what the shadow would have done.
func (c *cli) describePolicy(ctx context.Context, a *admin.Client, p api.Policy, s *sheet) {
	s.line("policy", p.Kind+"/"+p.ID)
	s.line("version", strconv.FormatInt(p.Version, 10))
	s.line("stage", p.Stage)
	s.line("in force", yesNo(p.InForce))
	s.line("author", p.Author)
	s.line("changed", stamp(p.Time, c.now()))
	s.line("note", p.Note)
	s.line("sha256", p.SHA256)
	versions, err := a.PolicyVersions(ctx, p.Kind, p.ID)
	if err != nil {
		s.err = cmp.Or(s.err, err)
		return
	}
	var lines []string
	for _, v := range versions {
		lines = append(lines, fmt.Sprintf("%d  %-8s %s  %s", v.Version, v.Stage, age(v.Time, c.now()), v.Author))
	}
	s.line("versions", strings.Join(lines, "\n"))
	if p.Shadow != 0 {
		report, err := a.PolicyShadow(ctx, p.Kind, p.ID)
		if err != nil {
			s.err = cmp.Or(s.err, err)
			return
		}
		describeShadow(report, p.Shadow, s)
	}
	s.block("rego", p.Rego)
}

func describeShadow(r api.ShadowReport, version int64, s *sheet) {
	text := fmt.Sprintf("version %d: %s", version, tallyText(r.Tally))
	if r.Dropped > 0 {
		text += fmt.Sprintf(", %d not asked", r.Dropped)
	}
	for _, row := range flipRows(r.Samples) {
		text += "\n" + strings.Join(row[:4], "  ")
	}
	s.line("shadow", text)
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
	if p.Stage == api.StageEnforce && !p.InForce {
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

// oneOf gets an object of a kind whose interface only lists.
func oneOf(kind string, list func(context.Context, *cli, *admin.Client, listOptions) ([]object, error)) func(context.Context, *cli, *admin.Client, string) (object, error) {
	return func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
		all, err := list(ctx, c, a, listOptions{})
		if err != nil {
			return object{}, err
		}
		for _, o := range all {
			if o.name == name {
				return o, nil
			}
		}
		return object{}, fault.Newf(fault.NotFound, "there is no %s %s", kind, name)
	}
}

// doing says what was attempted, once.
func doing(err error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
