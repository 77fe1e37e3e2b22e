package ctl

import (
	"context"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
)

func resourceKind() kind {
	return kind{
		name: "resource", aliases: []string{"resources", "res"},
		header: []string{"PATH", "VERSION", "SIZE", "AUTHOR", "AGE"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.Resources(ctx, admin.ResourceQuery{Prefix: o.prefix, Limit: o.limit})
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
		delete: func(ctx context.Context, a *admin.Client, name string) error {
			path, err := resourcePath(name)
			if err != nil {
				return err
			}
			return a.DeleteResource(ctx, path)
		},
		schema: resourceSchema,
	}
}

const resourceSchema = `kind: Resource
  A secret that the broker releases to attested guests. Its value cannot be
  read back: kbsctl shows only version, size and author.

metadata:
  name       repo/type/tag, for example prod/image/app
  version    optional: apply only if this is still the version at the broker
spec:
  valueFile  the file that holds the value, relative to this document`

// resourcePath accepts repo/type/tag, also in the form kbs:///repo/type/tag.
func resourcePath(name string) (string, error) {
	p, err := resource.ParsePath(strings.TrimPrefix(name, "kbs:///"))
	if err != nil {
		return "", usagef("%q: %w", name, err)
	}
	return p.String(), nil
}

func (c *cli) resourceObject(r api.ResourceInfo) object {
	return object{
		kind: "resource", name: r.Path, data: r,
		row: []string{r.Path, strconv.FormatInt(r.Version, 10), size(r.Size), r.Author, age(r.Time, c.now())},
		describe: func(s *sheet) {
			s.line("resource", r.Path)
			s.line("uri", "kbs:///"+r.Path)
			s.line("version", strconv.FormatInt(r.Version, 10))
			s.line("size", size(r.Size))
			s.line("author", r.Author)
			s.line("changed", stamp(r.Time, c.now()))
			s.line("value", "cannot be read back")
		},
	}
}
