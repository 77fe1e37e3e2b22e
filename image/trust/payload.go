package trust

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// Claim is what a signature says of an image.
type Claim struct {
	Digest      digest.Digest     // of the manifest
	Reference   string            // docker-reference; empty where the form has no name
	Annotations map[string]string // what the signer added, signed too
}

// carries says whether the claim has all the annotations that are wanted.
func (c Claim) carries(wanted map[string]string) bool {
	for k, v := range wanted {
		if seen, ok := c.Annotations[k]; !ok || seen != v {
			return false
		}
	}
	return true
}

// versions returns the annotations that have a floor.
func (c Claim) versions(floors map[string]*version) map[string]string {
	var m map[string]string
	for name := range floors {
		if m == nil {
			m = map[string]string{}
		}
		m[name] = c.Annotations[name]
	}
	return m
}

// texts keeps the members that are text: conditions compare nothing else.
func texts(members map[string]any) map[string]string {
	var m map[string]string
	for k, v := range members {
		if s, ok := v.(string); ok {
			if m == nil {
				m = map[string]string{}
			}
			m[k] = s
		}
	}
	return m
}

// ParsePayload reads a signature payload (containers-signature(5)). Anything
// unknown in its critical part is an error: it might be a condition.
func ParsePayload(raw []byte) (Claim, error) {
	c, err := parsePayload(raw, PayloadType)
	if err != nil {
		return Claim{}, fmt.Errorf("signature payload: %w", err)
	}
	return c, nil
}

func parsePayload(raw []byte, wanted string) (Claim, error) {
	var c Claim
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return c, err
	}
	critical, err := child(doc, "critical")
	if err != nil {
		return c, err
	}
	image, err := child(critical, "image")
	if err != nil {
		return c, err
	}
	identity, err := child(critical, "identity")
	if err != nil {
		return c, err
	}
	var kind string
	var optional map[string]any
	for _, m := range []struct {
		in   *strictjson.Object
		name string
		v    any
	}{{critical, "type", &kind}, {image, "docker-manifest-digest", &c.Digest}, {identity, "docker-reference", &c.Reference}, {doc, "optional", &optional}} {
		if _, err := m.in.Take(m.name, m.v); err != nil {
			return c, err
		}
	}
	if kind != wanted {
		return c, fmt.Errorf("type %.60q is not supported", kind)
	}
	if err := registry.CheckDigest(c.Digest); err != nil {
		return c, err
	}
	c.Annotations = texts(optional)
	return c, errors.Join(doc.Done(), critical.Done(), image.Done(), identity.Done())
}

func child(o *strictjson.Object, name string) (*strictjson.Object, error) {
	c, err := o.Object(name)
	if err == nil && c == nil {
		err = fmt.Errorf("member %q is missing", name)
	}
	return c, err
}
