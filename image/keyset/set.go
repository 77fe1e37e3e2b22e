package keyset

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const (
	schemaVersion = 1
	maxSet        = 1 << 20 // bytes of one set
	maxLayers     = 1024    // of one set
)

// A Set is the wrapped keys of an image, by the digest of the encrypted layer.
type Set map[digest.Digest][]crypt.WrappedKey

// The JSON of a set. The packets have the form that they have in a layer's
// descriptor, so that they can be moved there and back.
type setJSON struct {
	SchemaVersion int         `json:"schemaVersion"`
	Layers        []layerJSON `json:"layers"`
}

type layerJSON struct {
	Digest      digest.Digest     `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// Marshal returns the JSON of the set, the same for the same set.
func (s Set) Marshal() ([]byte, error) {
	doc := setJSON{SchemaVersion: schemaVersion}
	for _, d := range slices.Sorted(maps.Keys(s)) {
		a, err := crypt.KeyAnnotations(s[d]...)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d, err)
		}
		doc.Layers = append(doc.Layers, layerJSON{Digest: d, Annotations: a})
	}
	return json.Marshal(doc)
}

// Parse reads a set. A packet whose wrap does not authenticate itself is left
// out. Members that are not of the form above are ignored.
func Parse(raw []byte) (Set, error) {
	if len(raw) > maxSet {
		return nil, fmt.Errorf("key set of %d bytes, at most %d are read", len(raw), maxSet)
	}
	o, err := strictjson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	var doc setJSON
	for name, v := range map[string]any{"schemaVersion": &doc.SchemaVersion, "layers": &doc.Layers} {
		if _, err := o.Take(name, v); err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
	}
	if doc.SchemaVersion != schemaVersion {
		return nil, fmt.Errorf("key set of version %d is not supported", doc.SchemaVersion)
	}
	if len(doc.Layers) > maxLayers {
		return nil, fmt.Errorf("key set of %d layers, at most %d are read", len(doc.Layers), maxLayers)
	}
	s := Set{}
	for _, l := range doc.Layers {
		if err := registry.CheckDigest(l.Digest); err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		if _, twice := s[l.Digest]; twice {
			return nil, fmt.Errorf("key set: layer %s is there twice", l.Digest)
		}
		keys, err := crypt.ParseKeyAnnotations(l.Annotations)
		if err != nil {
			return nil, fmt.Errorf("key set: layer %s: %w", l.Digest, err)
		}
		s[l.Digest] = slices.DeleteFunc(keys, func(w crypt.WrappedKey) bool { return w.Authentic() != nil })
	}
	return s, nil
}
