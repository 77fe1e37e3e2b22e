package ship

import (
	"context"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyset"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// Inspection is what an image says of itself. Nothing in it was judged by a
// policy; signatures are as found, not verified.
type Inspection struct {
	Reference  string              `json:"reference"`
	Digest     string              `json:"digest"` // of the platform's manifest
	Index      string              `json:"index,omitempty"`
	MediaType  string              `json:"mediaType"`
	Platform   string              `json:"platform"`
	Config     ocispec.ImageConfig `json:"config"`
	Layers     []LayerInfo         `json:"layers"`
	Signatures []SignatureInfo     `json:"signatures"` // unverified
}

// LayerInfo describes one layer.
type LayerInfo struct {
	Digest    string   `json:"digest"`
	DiffID    string   `json:"diffID"`
	MediaType string   `json:"mediaType"`
	Size      int64    `json:"size"` // bytes as stored
	Encrypted bool     `json:"encrypted"`
	Keys      []string `json:"keys,omitempty"`       // who the packets are for: key IDs, or their kind
	Beside    []string `json:"keysBeside,omitempty"` // the same, of packets in a referrer
	Problem   string   `json:"problem,omitempty"`    // why the encryption could not be read
}

// SignatureInfo describes one signature.
type SignatureInfo struct {
	Form    trust.Form   `json:"form,omitempty"`
	Origin  trust.Origin `json:"origin"`
	Digest  string       `json:"digest,omitempty"`
	Name    string       `json:"name,omitempty"` // the docker-reference that was signed
	KeyHint string       `json:"keyHint,omitempty"`
	Attests string       `json:"attests,omitempty"` // type of the predicate; empty: it signs
	Problem string       `json:"problem,omitempty"`
}

// InspectOptions say how an image is looked at.
type InspectOptions struct {
	Registry  registry.Config
	Lookaside *trust.Lookaside  // nil leaves out the signatures that lie in no registry
	Platform  registry.Platform // of a multi-platform image; zero: linux on this architecture
}

// Inspect reads manifest, config and signatures of an image. It needs no keys.
func Inspect(ctx context.Context, ref string, o InspectOptions) (*Inspection, error) {
	client, err := registry.NewClient(o.Registry)
	if err != nil {
		return nil, err
	}
	if o.Platform == (registry.Platform{}) {
		o.Platform = registry.Native()
	}
	at, err := openPlace(client, ref, toRead)
	if err != nil {
		return nil, err
	}
	res, err := registry.Resolve(ctx, at.source, at.version, o.Platform)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := registry.ReadConfig(ctx, at.source, res.Image.Config, &config); err != nil {
		return nil, err
	}
	in := &Inspection{
		Reference: at.show(res.Manifest.Digest.String()), Digest: res.Manifest.Digest.String(), MediaType: res.Manifest.MediaType,
		Platform: strings.TrimSuffix(config.OS+"/"+config.Architecture+"/"+config.Variant, "/"), Config: config.Config,
		Signatures: []SignatureInfo{},
	}
	if res.Root.Digest != res.Manifest.Digest {
		in.Index = res.Root.Digest.String()
	}
	beside, err := keyset.Fetch(ctx, at.source, res.Manifest.Digest)
	if err != nil {
		return nil, err
	}
	for i, l := range res.Image.Layers {
		info := layerInfo(l, beside.Keys[l.Digest])
		if i < len(config.RootFS.DiffIDs) {
			info.DiffID = config.RootFS.DiffIDs[i].String()
		}
		in.Layers = append(in.Layers, info)
	}
	found, err := trust.Survey(ctx,
		trust.SubjectOf(at.ref, res),
		trust.Evidence{Signatures: at.source, Lookaside: func(context.Context) (*trust.Lookaside, error) { return o.Lookaside, nil }})
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		in.Signatures = append(in.Signatures, signatureInfo(f))
	}
	return in, nil
}

func layerInfo(l ocispec.Descriptor, beside []crypt.WrappedKey) LayerInfo {
	info := LayerInfo{Digest: l.Digest.String(), MediaType: l.MediaType, Size: l.Size, Encrypted: strings.HasSuffix(l.MediaType, crypt.MediaSuffix)}
	if !info.Encrypted {
		return info
	}
	_, keys, err := crypt.ParseAnnotations(l.Annotations)
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	readers := func(keys []crypt.WrappedKey) (names []string) {
		for _, w := range keys {
			name, err := w.Reader()
			if err != nil {
				info.Problem = err.Error()
				continue
			}
			names = append(names, name)
		}
		return names
	}
	info.Keys, info.Beside = readers(keys), readers(beside)
	return info
}

func signatureInfo(f trust.Found) SignatureInfo {
	info := SignatureInfo{Form: f.Form, Origin: f.Origin, KeyHint: f.KeyHint, Attests: f.Predicate, Problem: f.Problem}
	if len(f.Claims) > 0 {
		info.Digest, info.Name = f.Claims[0].Digest.String(), f.Claims[0].Reference
	}
	return info
}
