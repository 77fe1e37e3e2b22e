package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxManifest is the size limit for manifests, indexes and image configs, in
// bytes. Registries commonly refuse larger ones too.
const MaxManifest = 4 << 20

// Docker's own media types, which the OCI types mirror.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// acceptTypes is what this package can read, in the Accept header's form.
const acceptTypes = ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex + ", " +
	MediaTypeDockerManifest + ", " + MediaTypeDockerIndex

// Manifest is the raw form of a manifest or index, its digest verified against
// what was asked for, or computed where a tag was asked for.
type Manifest struct {
	MediaType string
	Digest    digest.Digest
	Raw       []byte
}

// Descriptor returns the descriptor of m.
func (m Manifest) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Raw))}
}

// IsIndex reports whether m lists other manifests.
func (m Manifest) IsIndex() bool { return isIndexType(m.MediaType) }

func isIndexType(t string) bool { return t == ocispec.MediaTypeImageIndex || t == MediaTypeDockerIndex }
func isManifestType(t string) bool {
	return t == ocispec.MediaTypeImageManifest || t == MediaTypeDockerManifest
}

// newManifest checks raw bytes against the digest wanted (may be empty) and
// settles which kind of document they are. The document itself must agree with
// the type that the transport gave it, and must not be readable both ways.
func newManifest(raw []byte, transportType string, wanted digest.Digest) (Manifest, error) {
	algorithm := digest.SHA256
	if wanted != "" {
		algorithm = wanted.Algorithm()
	}
	seen := algorithm.FromBytes(raw)
	if wanted != "" && seen != wanted {
		return Manifest{}, &DigestError{What: "manifest", Wanted: wanted, Seen: seen}
	}
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return Manifest{}, malformed("manifest %s: %w", seen, err)
	}
	var inner string
	if _, err := doc.Take("mediaType", &inner); err != nil {
		return Manifest{}, malformed("manifest %s: %w", seen, err)
	}
	if inner != "" && transportType != "" && inner != transportType {
		return Manifest{}, malformed("manifest %s calls itself %.80q but came as %.80q", seen, inner, transportType)
	}
	mediaType := inner
	if mediaType == "" {
		mediaType = transportType
	}
	if mediaType == "" { // a layout's blob: OCI lets a document leave its type out
		mediaType = ocispec.MediaTypeImageManifest
		if doc.HasFold("manifests") {
			mediaType = ocispec.MediaTypeImageIndex
		}
	}
	switch {
	case isIndexType(mediaType):
		if doc.HasFold("config") || doc.HasFold("layers") {
			return Manifest{}, malformed("index %s has the members of a manifest", seen)
		}
	case isManifestType(mediaType):
		if doc.HasFold("manifests") {
			return Manifest{}, malformed("manifest %s has the members of an index", seen)
		}
	default:
		return Manifest{}, malformed("manifest %s has media type %.80q, which is not supported", seen, mediaType)
	}
	return Manifest{MediaType: mediaType, Digest: seen, Raw: raw}, nil
}

// Image parses m as an image manifest.
func (m Manifest) Image() (*ocispec.Manifest, error) {
	if !isManifestType(m.MediaType) {
		return nil, malformed("%s is not an image manifest", m.Digest)
	}
	var wire struct {
		ocispec.Manifest
		Layers json.RawMessage `json:"layers"` // in its place
	}
	err := decode(m.Raw, &wire)
	doc := wire.Manifest
	if err == nil {
		doc.Layers, err = descriptors(wire.Layers)
	}
	if err != nil {
		return nil, malformed("manifest %s: %w", m.Digest, err)
	}
	if doc.SchemaVersion != 2 {
		return nil, malformed("manifest %s has schema version %d", m.Digest, doc.SchemaVersion)
	}
	for _, d := range append([]ocispec.Descriptor{doc.Config}, doc.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	return &doc, nil
}

// Index parses m as an index.
func (m Manifest) Index() (*ocispec.Index, error) {
	if !m.IsIndex() {
		return nil, malformed("%s is not an index", m.Digest)
	}
	var wire struct {
		ocispec.Index
		Manifests json.RawMessage `json:"manifests"` // in its place
	}
	err := decode(m.Raw, &wire)
	doc := wire.Index
	if err == nil {
		doc.Manifests, err = descriptors(wire.Manifests)
	}
	if err != nil {
		return nil, malformed("index %s: %w", m.Digest, err)
	}
	if doc.SchemaVersion != 2 {
		return nil, malformed("index %s has schema version %d", m.Digest, doc.SchemaVersion)
	}
	return &doc, nil
}

// maxDescriptors is how many layers or manifests a document may list. Its size alone
// bounds too little: a million empty ones fit into [MaxManifest].
const maxDescriptors = 4096

func descriptors(raw json.RawMessage) ([]ocispec.Descriptor, error) {
	list, err := strictjson.List(raw, maxDescriptors)
	if err != nil || list == nil {
		return nil, err
	}
	all := make([]ocispec.Descriptor, len(list))
	for i, one := range list {
		if err := json.Unmarshal(one, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// decode ignores unknown members, as the OCI specification asks.
// Duplicate members and trailing bytes were refused by newManifest.
func decode(raw []byte, v any) error { return json.NewDecoder(bytes.NewReader(raw)).Decode(v) }

// A Platform chooses among the manifests of an index.
type Platform struct{ OS, Architecture, Variant string }

// Native returns the platform that this program runs on. The variant stays
// empty: the baseline of the architecture.
func Native() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH} }

// variants lists what p can run, best first. An empty variant in an index
// means the baseline: v8 for arm64, v7 for arm, v1 for amd64.
func (p Platform) variants() []string {
	baseline := map[string]string{"arm64": "v8", "arm": "v7", "amd64": "v1"}[p.Architecture]
	if p.Variant != "" && p.Variant != baseline {
		return []string{p.Variant}
	}
	if p.Architecture == "arm" {
		return []string{"", "v7", "v6", "v5"}
	}
	return []string{"", baseline}
}

// choose returns the entry of the index for p. The order of preference is that
// of the variants, then that of the index.
func (p Platform) choose(index *ocispec.Index) (ocispec.Descriptor, error) {
	for _, v := range p.variants() {
		i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool {
			return d.Platform != nil && d.Platform.OS == p.OS && d.Platform.Architecture == p.Architecture &&
				d.Platform.Variant == v
		})
		if i < 0 {
			continue
		}
		d := index.Manifests[i]
		if isIndexType(d.MediaType) {
			return ocispec.Descriptor{}, malformed("an index inside an index is not supported")
		}
		return d, checkDescriptor(d)
	}
	return ocispec.Descriptor{}, malformed("the index has no manifest for %s, it has %s", p, has(index))
}

func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// has tells of some platforms what an index has.
func has(index *ocispec.Index) string {
	const most = 8
	var names []string
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" { // the latter are attestations of BuildKit
			continue
		}
		if len(names) == most {
			names = append(names, "others")
			break
		}
		p := Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant}
		names = append(names, fmt.Sprintf("%.40s", p))
	}
	if len(names) == 0 {
		return "none that has a platform"
	}
	return strings.Join(names, ", ")
}
