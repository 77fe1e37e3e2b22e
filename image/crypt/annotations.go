package crypt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The annotations of an encrypted layer (guest-protocol 11.1).
const (
	AnnotationPublic  = "org.opencontainers.image.enc.pubopts"
	AnnotationPackets = annotationPrefix + string(SchemeProvider)

	annotationPrefix = "org.opencontainers.image.enc.keys."
)

// MediaSuffix ends the media type of every encrypted layer.
const MediaSuffix = "+encrypted"

const maxPackets = 16 // recipients of one layer

// Annotations returns what an encrypted layer's descriptor must carry if its
// keys travel with it.
func Annotations(pub Public, keys ...WrappedKey) (map[string]string, error) {
	if len(keys) == 0 {
		return nil, errors.New("an encrypted layer needs at least one key packet")
	}
	a, err := KeyAnnotations(keys...)
	if err != nil {
		return nil, err
	}
	raw, err := pub.Marshal()
	if err != nil {
		return nil, err
	}
	a[AnnotationPublic] = base64.StdEncoding.EncodeToString(raw)
	return a, nil
}

// KeyAnnotations returns the annotations of key packets alone: one for each
// scheme, whose packets are joined in their order.
func KeyAnnotations(keys ...WrappedKey) (map[string]string, error) {
	if len(keys) > maxPackets {
		return nil, tooMany(len(keys))
	}
	a := map[string]string{}
	for _, k := range keys {
		name, text := annotationPrefix+string(k.Scheme), base64.StdEncoding.EncodeToString(k.Packet)
		if a[name] != "" {
			text = a[name] + "," + text
		}
		a[name] = text
	}
	return a, nil
}

// WithoutKeys returns a copy of the annotations that has no key packets.
func WithoutKeys(a map[string]string) map[string]string {
	a = maps.Clone(a)
	maps.DeleteFunc(a, func(name, _ string) bool { return strings.HasPrefix(name, annotationPrefix) })
	return a
}

// ParseAnnotations reads the public options and the key packets of a layer, in
// the order in which they should be tried: our key provider's first, then those
// of other key providers, then the rest, each by name. The field's decryptors
// look at no provider's name either. That there is no packet is no error: it may
// travel in a referrer.
func ParseAnnotations(a map[string]string) (Public, []WrappedKey, error) {
	text, ok := a[AnnotationPublic]
	if !ok {
		return Public{}, nil, errors.New("the encrypted layer has no public options")
	}
	raw, err := decode64(text)
	if err != nil {
		return Public{}, nil, fmt.Errorf("public layer options: %w", err)
	}
	pub, err := ParsePublic(raw)
	if err != nil {
		return Public{}, nil, err
	}
	keys, err := ParseKeyAnnotations(a)
	return pub, keys, err
}

// ParseKeyAnnotations reads the key packets alone, see [ParseAnnotations].
func ParseKeyAnnotations(a map[string]string) ([]WrappedKey, error) {
	var keys []WrappedKey
	for _, scheme := range schemes(a) {
		for text := range strings.SplitSeq(a[annotationPrefix+string(scheme)], ",") {
			if len(keys) == maxPackets {
				return nil, tooMany(len(keys) + 1)
			}
			packet, err := decode64(text)
			if err != nil {
				return nil, fmt.Errorf("key packet %.40q: %w", scheme, err)
			}
			keys = append(keys, WrappedKey{Scheme: scheme, Packet: packet})
		}
	}
	return keys, nil
}

func tooMany(n int) error {
	return fmt.Errorf("the layer has %d key packets or more, at most %d are read", n, maxPackets)
}

// schemes lists the schemes of the annotations, best first.
func schemes(a map[string]string) []Scheme {
	var list []Scheme
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if s, ok := strings.CutPrefix(name, annotationPrefix); ok {
			list = append(list, Scheme(s))
		}
	}
	rank := func(s Scheme) int {
		switch {
		case s == SchemeProvider:
			return 0
		case s.IsProvider():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(list, func(x, y Scheme) int { return rank(x) - rank(y) })
	return list
}

func decode64(s string) ([]byte, error) {
	if len(s) > 2*maxOptions {
		return nil, fmt.Errorf("%d characters of base64 are too many", len(s))
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") { // which the decoder skips
		return nil, errors.New("not base64")
	}
	return b, nil
}
