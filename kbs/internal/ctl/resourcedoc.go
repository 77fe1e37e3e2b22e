package ctl

import (
	"context"
	"fmt"
	"reflect"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A document about a resource brings a value, says something about the
// resource, or both. A value cannot be read back, so the document of a resource
// that is there only says.

func resourceManifest(r api.ResourceInfo) *manifest {
	said := about(r.ResourceMeta)
	return &manifest{Kind: docResource, Metadata: metadata{Name: r.Path, Version: r.Version}, Spec: spec{About: &said}}
}

// value reads the file that m names; the zero value if it names none.
func (m *manifest) value() (secret.Bytes, error) {
	if m.Spec.ValueFile == "" {
		return secret.Bytes{}, nil
	}
	value, err := readSecret(m.path(m.Spec.ValueFile))
	if err != nil {
		return secret.Bytes{}, usagef("%s: %w", m.origin, err)
	}
	return value, nil
}

func readSecret(path string) (secret.Bytes, error) {
	b, err := given.File(path, maxResource)
	return secret.New(b), err
}

func applyResource(ctx context.Context, a *admin.Client, path string, m *manifest, value secret.Bytes, dry bool) (string, error) {
	live, err := a.Resource(ctx, path)
	none, err := absent(err)
	if err != nil {
		return "", err
	}
	if err := outdated(m.Metadata.Version, live.Version); err != nil {
		return "", err
	}
	what := configured
	if none {
		what = created
	}
	said := m.Spec.About.meta()
	if m.Spec.ValueFile == "" {
		switch {
		case none:
			return "", fault.Newf(fault.NotFound, "there is no such resource, and the document has no value for it")
		case sameMeta(*said, live.ResourceMeta):
			return unchanged, nil
		case dry:
			return what, nil
		}
		_, err = a.SetResourceMeta(ctx, path, live.Version, *said)
		return what, err
	}
	if dry {
		return what, nil
	}
	_, err = a.PutResourceIf(ctx, path, live.Version, value, said)
	return what, err
}

// sameMeta takes an absent list for an empty one.
func sameMeta(a, b api.ResourceMeta) bool {
	list := func(m *api.ResourceMeta) {
		if len(m.Labels) == 0 {
			m.Labels = nil
		}
		if len(m.Images) == 0 {
			m.Images = nil
		}
		m.Expires = m.Expires.UTC()
	}
	list(&a)
	list(&b)
	return reflect.DeepEqual(a, b)
}

func (c *cli) resourceSides(ctx context.Context, a *admin.Client, m *manifest) (live, desired []byte, err error) {
	path, err := resourcePath(m.Metadata.Name)
	if err != nil {
		return nil, nil, err
	}
	have, err := a.Resource(ctx, path)
	none, err := absent(err)
	if err != nil {
		return nil, nil, err
	}
	if m.Spec.ValueFile == "" {
		return metaSides(m, have, none)
	}
	value, err := m.value()
	if err != nil {
		return nil, nil, err
	}
	defer value.Destroy()
	text := func(n int) []byte { return fmt.Appendf(nil, "resource %s: %d bytes\n", path, n) }
	desired = text(value.Len())
	if none {
		return nil, desired, nil
	}
	if have.Size == value.Len() {
		c.warnf("%s: the sizes agree; whether the values do cannot be told", m.target())
	}
	return text(have.Size), desired, nil
}

// metaSides compares what is said about a resource.
func metaSides(m *manifest, have api.ResourceInfo, none bool) (live, desired []byte, err error) {
	want := api.ResourceInfo{Path: have.Path, ResourceMeta: *m.Spec.About.meta()}
	if none {
		want.Path = m.Metadata.Name
	} else {
		if sameMeta(want.ResourceMeta, have.ResourceMeta) {
			want.ResourceMeta = have.ResourceMeta // spelled alike
		}
		if live, err = differ(resourceManifest(have)); err != nil {
			return nil, nil, err
		}
	}
	desired, err = differ(resourceManifest(want))
	return live, desired, err
}
