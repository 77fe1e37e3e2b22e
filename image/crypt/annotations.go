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
	AnnotationPackets = annotationProviders + "attestation-agent"

	annotationPrefix    = "org.opencontainers.image.enc.keys."
	annotationProviders = annotationPrefix + "provider."
)

// MediaSuffix ends the media type of every encrypted layer.
const MediaSuffix = "+encrypted"

const maxPackets = 16 // recipients of one layer

// Annotations returns what an encrypted layer's descriptor must carry.
func Annotations(pub Public, packets ...[]byte) (map[string]string, error) {
	raw, err := pub.Marshal()
	if err != nil {
		return nil, err
	}
	if len(packets) == 0 {
		return nil, errors.New("an encrypted layer needs at least one key packet")
	}
	var encoded []string
	for _, p := range packets {
		encoded = append(encoded, base64.StdEncoding.EncodeToString(p))
	}
	return map[string]string{
		AnnotationPublic:  base64.StdEncoding.EncodeToString(raw),
		AnnotationPackets: strings.Join(encoded, ","),
	}, nil
}

// ParseAnnotations reads the public options and the key packets of a layer.
// Like the field's decryptors it takes the packets of any key provider, ours
// first; where several others exist, the first by name.
func ParseAnnotations(a map[string]string) (Public, [][]byte, error) {
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
	joined, err := packetText(a)
	if err != nil {
		return Public{}, nil, err
	}
	parts := strings.Split(joined, ",")
	if len(parts) > maxPackets {
		return Public{}, nil, fmt.Errorf("the layer has %d key packets, at most %d are read", len(parts), maxPackets)
	}
	var packets [][]byte
	for _, p := range parts {
		packet, err := decode64(p)
		if err != nil {
			return Public{}, nil, fmt.Errorf("key packet: %w", err)
		}
		packets = append(packets, packet)
	}
	return pub, packets, nil
}

func packetText(a map[string]string) (string, error) {
	if s, ok := a[AnnotationPackets]; ok {
		return s, nil
	}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if strings.HasPrefix(k, annotationProviders) {
			return a[k], nil
		}
	}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if s, ok := strings.CutPrefix(k, annotationPrefix); ok {
			return "", fmt.Errorf("the layer's key is wrapped by %.40q, which is not supported", s)
		}
	}
	return "", errors.New("the encrypted layer has no key packet")
}

func decode64(s string) ([]byte, error) {
	if len(s) > 2*maxOptions {
		return nil, fmt.Errorf("%d characters of base64 are too many", len(s))
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return b, nil
}
