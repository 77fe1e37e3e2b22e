package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Store is read and written: a [*Repository] or a [*Layout].
type Store interface {
	Source
	Sink
}

// ListReferrers lists the manifests that name d as their subject: by the
// registry's own list where the source has one, else by the index under the
// fallback tag. See [Repository.Referrers].
func ListReferrers(ctx context.Context, src Source, d digest.Digest) ([]ocispec.Descriptor, error) {
	if r, ok := src.(*Repository); ok {
		return r.Referrers(ctx, d)
	}
	return TaggedReferrers(ctx, src, d)
}

// Attach stores a manifest that names a subject. Where it does not show up in
// the registry's list by itself, it is entered into the index under the fallback
// tag (distribution-spec, "Pushing Manifests with Subject"). Two writers at the
// same moment may lose one entry there, for registries cannot compare and swap.
func Attach(ctx context.Context, to Store, raw []byte) (Manifest, error) {
	m, err := newManifest(raw, ocispec.MediaTypeImageManifest, "")
	if err != nil {
		return m, err
	}
	doc, err := m.Image()
	if err != nil {
		return m, err
	}
	if doc.Subject == nil {
		return m, malformed("manifest %s has no subject", m.Digest)
	}
	if _, err := to.PushManifest(ctx, "", m.MediaType, raw); err != nil {
		return m, err
	}
	list, err := ListReferrers(ctx, to, doc.Subject.Digest)
	if err != nil {
		return m, err
	}
	if slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == m.Digest }) {
		return m, nil
	}
	entry := m.Descriptor()
	entry.ArtifactType, entry.Annotations = doc.ArtifactType, doc.Annotations
	if entry.ArtifactType == "" { // as registries that list it do ("Listing Referrers")
		entry.ArtifactType = doc.Config.MediaType
	}
	return m, writeReferrers(ctx, to, doc.Subject.Digest, append(list, entry))
}

// Detach removes a manifest that refers to subject: from the index under the
// fallback tag, and from a registry that lets manifests be deleted. It reports
// whether readers of the list do not find it any more.
func Detach(ctx context.Context, from Store, subject, gone digest.Digest) (bool, error) {
	same := func(d ocispec.Descriptor) bool { return d.Digest == gone }
	tagged, err := TaggedReferrers(ctx, from, subject)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(tagged, same) {
		if err := writeReferrers(ctx, from, subject, slices.DeleteFunc(tagged, same)); err != nil {
			return false, err
		}
	}
	if r, ok := from.(*Repository); ok {
		if err := r.deleteManifest(ctx, gone); err != nil {
			return false, err
		}
	}
	list, err := ListReferrers(ctx, from, subject)
	return err == nil && !slices.ContainsFunc(list, same), err
}

func writeReferrers(ctx context.Context, to Sink, subject digest.Digest, list []ocispec.Descriptor) error {
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list,
	})
	if err != nil {
		return err
	}
	if _, err := to.PushManifest(ctx, referrersTag(subject), ocispec.MediaTypeImageIndex, raw); err != nil {
		return fmt.Errorf("list of referrers: %w", err)
	}
	return nil
}

func referrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// deleteManifest asks for a manifest to be deleted. That a registry does not
// offer or not allow it is no error.
func (r *Repository) deleteManifest(ctx context.Context, d digest.Digest) error {
	cl, err := r.home.http(ctx, transport.DeleteScope)
	if err != nil {
		return r.deleteError(d, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, r.home.url("manifests", d.String()), nil)
	if err != nil {
		return err
	}
	resp, err := cl.Do(req)
	if err != nil {
		return r.deleteError(d, err)
	}
	defer func() { _ = resp.Body.Close() }()
	err = transport.CheckError(resp, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // lets the connection be used again
	return r.deleteError(d, err)
}

func (r *Repository) deleteError(d digest.Digest, err error) error {
	te, ok := errors.AsType[*transport.Error](err)
	if err == nil || (ok && te.StatusCode >= 400 && te.StatusCode < 500) {
		return nil
	}
	return fmt.Errorf("delete %s in %s: %w", d, r.ref.Name(), err)
}
