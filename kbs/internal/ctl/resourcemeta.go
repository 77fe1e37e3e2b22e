package ctl

import (
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// metaFlags are what a command says about a resource.
type metaFlags struct {
	owner, purpose, contentType, expires, hold string
	labels, images                             []string
}

func (m *metaFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.owner, "owner", "", "`NAME` of who answers for it")
	f.StringVar(&m.purpose, "purpose", "", "`TEXT`: what it is for")
	f.StringVar(&m.contentType, "content-type", "", "`TYPE` of the value, such as text/plain")
	f.StringVar(&m.expires, "expires", "", "`TIME` (RFC 3339) or day after which it is not released; \"never\" for none")
	f.StringVar(&m.hold, "hold", "", "release it to nobody, for this `REASON`; \"\" ends that")
	f.StringArrayVar(&m.labels, "label", nil, "`NAME=VALUE` (repeatable); NAME- takes one away")
	f.StringArrayVar(&m.images, "image", nil,
		"manifest digest or repository of an `IMAGE` that it is for (repeatable); \"\" alone takes the binding away")
}

func (m *metaFlags) given(cmd *cobra.Command) bool {
	for _, name := range []string{"owner", "purpose", "content-type", "expires", "hold", "label", "image"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// change applies the flags that were given to what was said before.
func (m *metaFlags) change(cmd *cobra.Command, about api.ResourceMeta) (api.ResourceMeta, error) {
	for name, to := range map[string]struct{ place, value *string }{
		"owner": {&about.Owner, &m.owner}, "purpose": {&about.Purpose, &m.purpose},
		"content-type": {&about.ContentType, &m.contentType}, "hold": {&about.Hold, &m.hold},
	} {
		if cmd.Flags().Changed(name) {
			*to.place = *to.value
		}
	}
	if cmd.Flags().Changed("expires") {
		about.Expires = time.Time{}
		if m.expires != "never" {
			var err error
			if about.Expires, err = parseExpiry(m.expires); err != nil {
				return about, usagef("--expires: %w", err)
			}
		}
	}
	if cmd.Flags().Changed("image") {
		about.Images = m.images
		if len(m.images) == 1 && m.images[0] == "" {
			about.Images = nil
		}
	}
	about.Labels = maps.Clone(about.Labels)
	for _, l := range m.labels {
		if name, ok := strings.CutSuffix(l, "-"); ok && !strings.Contains(l, "=") {
			delete(about.Labels, name)
			continue
		}
		one, err := parseLabels([]string{l})
		if err != nil {
			return about, err
		}
		if about.Labels == nil {
			about.Labels = map[string]string{}
		}
		maps.Copy(about.Labels, one)
	}
	return about, nil
}
