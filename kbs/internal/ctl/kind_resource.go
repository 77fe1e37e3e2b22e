package ctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
)

func resourceKind() kind {
	return kind{
		name: "resource", aliases: []string{"resources", "res"},
		header: []string{"PATH", "VERSION", "SIZE", "AUTHOR", "AGE", "OWNER", "EXPIRES", "RELEASED"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			q := admin.ResourceQuery{Prefix: o.prefix, Limit: o.limit, Owner: o.owner}
			var err error
			if q.Labels, err = parseLabels(o.labels); err != nil {
				return nil, err
			}
			if o.expiring > 0 {
				q.ExpiresBefore = c.now().Add(o.expiring)
			}
			all, err := a.Resources(ctx, q)
			return listed(all, o, c.resourceObject), err
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			path, err := resourcePath(name)
			if err != nil {
				return object{}, err
			}
			r, err := a.Resource(ctx, path)
			return c.resourceObject(r), err
		},
		delete: func(ctx context.Context, a *admin.Client, name string, want int64) error {
			path, err := resourcePath(name)
			if err != nil {
				return err
			}
			return a.DeleteResource(ctx, path, want)
		},
		schema: resourceSchema,
	}
}

const resourceSchema = `kind: Resource
  A secret that the broker releases to attested guests. Its value cannot be
  read back: kbsctl shows what is known about it. Each value is a version; a few
  are kept, and a guest may ask for one by ?version=N.

metadata:
  name       repo/type/tag, for example prod/image/app
  version    optional: apply only if this is still the version at the broker
spec:
  valueFile  the file that holds the value, relative to this document; without
             it, the value that there is stays
  about      optional with a value; without it, what was said before stays:
    owner, purpose, content_type   texts
    expires  a time (RFC 3339): from then on it is not released
    labels   names and values
    images   manifest digests or repositories: the broker releases the value
             only to a guest that names an image among them
    hold     why it is released to nobody for now`

// resourcePath accepts repo/type/tag, also in the form kbs:///repo/type/tag.
func resourcePath(name string) (string, error) {
	p, err := resource.ParsePath(strings.TrimPrefix(name, "kbs:///"))
	if err != nil {
		return "", usagef("%q: %w", name, err)
	}
	return p.String(), nil
}

// parseLabels reads NAME=VALUE.
func parseLabels(texts []string) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range texts {
		k, v, ok := strings.Cut(t, "=")
		if !ok || k == "" {
			return nil, usagef("label %q is not NAME=VALUE", t)
		}
		out[k] = v
	}
	return out, nil
}

func labelText(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}

// expiresSoon is how long before its end a resource is worth a warning.
const expiresSoon = 14 * 24 * time.Hour

// warnExpiry says what will soon be released no more, or is not already.
func (c *cli) warnExpiry(all ...api.ResourceInfo) {
	for _, r := range all {
		switch left := r.Expires.Sub(c.now()); {
		case r.Expires.IsZero() || left > expiresSoon:
		case left <= 0:
			c.warnf("WARNING: %s expired %s ago and is not released", r.Path, span(-left))
		default:
			c.warnf("WARNING: %s expires in %s", r.Path, span(left))
		}
	}
}

func (c *cli) resourceObject(r api.ResourceInfo) object {
	return object{
		kind: "resource", name: r.Path, version: r.Version, data: r,
		row: []string{
			r.Path, strconv.FormatInt(r.Version, 10), size(r.Size), r.Author, age(r.Time, c.now()),
			r.Owner, age(r.Expires, c.now()), releases(r, c.now()),
		},
		manifest: func() *manifest { return resourceManifest(r) },
		shown:    func() { c.warnExpiry(r) },
		describe: func(s *sheet) { c.describeResource(s, r) },
	}
}

func releases(r api.ResourceInfo, now time.Time) string {
	if r.Released == 0 {
		return ""
	}
	return fmt.Sprintf("%d, %s ago", r.Released, age(r.LastReleased, now))
}

func (c *cli) describeResource(s *sheet, r api.ResourceInfo) {
	s.line("resource", r.Path)
	s.line("uri", "kbs:///"+r.Path)
	s.line("backend", r.Backend)
	s.line("version", strconv.FormatInt(r.Version, 10))
	s.line("size", size(r.Size))
	s.line("author", r.Author)
	s.line("changed", stamp(r.Time, c.now()))
	if !r.Created.IsZero() {
		s.line("created", stamp(r.Created, c.now()))
	}
	s.line("owner", r.Owner)
	s.line("purpose", r.Purpose)
	s.line("type", r.ContentType)
	if !r.Expires.IsZero() {
		s.line("expires", stamp(r.Expires, c.now()))
	}
	s.line("labels", labelText(r.Labels))
	s.line("images", strings.Join(r.Images, "\n"))
	s.line("hold", r.Hold)
	s.line("released", releases(r, c.now()))
	for i, v := range r.Versions {
		label := ""
		if i == 0 {
			label = "versions"
		}
		s.line(label, versionText(v, v.Version == r.Value, c.now()))
	}
	s.line("value", "cannot be read back")
}

func versionText(v api.ResourceVersion, current bool, now time.Time) string {
	text := fmt.Sprintf("%d  %s  %s  %s", v.Version, size(v.Size), v.Author, stamp(v.Time, now))
	if v.CopyOf != 0 {
		text += fmt.Sprintf("  copy of %d", v.CopyOf)
	}
	if !v.Destroyed.IsZero() {
		text += "  destroyed"
	}
	if current {
		text += "  current"
	}
	return text
}
