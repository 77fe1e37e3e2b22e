package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxReferrers     = 512 // descriptors of one subject
	maxReferrerPages = 16
)

// Referrers lists the manifests that name d as their subject
// (distribution-spec, "Listing Referrers"). Where the registry does not know
// the request, the index tagged <algorithm>-<hex> is read instead, which
// clients keep there. None is not an error. What is listed is the registry's
// word alone: each entry must be fetched by its digest and judged.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	if err := CheckDigest(d); err != nil {
		return nil, err
	}
	failed := failures{origin: r.origin()}
	settled, none := false, false // by the origin
	for _, e := range r.order(false) {
		list, err := e.listReferrers(ctx, d)
		if ctx.Err() != nil || len(list) > 0 {
			return list, err
		}
		switch {
		case err != nil && !lacksReferrers(err):
			failed.add(e, err)
		case e == failed.origin: // that a mirror lists none says nothing
			settled, none = true, err == nil
		}
	}
	if !settled {
		return nil, failed.err()
	}
	if none {
		return nil, nil
	}
	return TaggedReferrers(ctx, r, d)
}

// TaggedReferrers reads the fallback index of referrers, which lies under a
// tag, from any source.
func TaggedReferrers(ctx context.Context, src Source, d digest.Digest) ([]ocispec.Descriptor, error) {
	m, err := src.Manifest(ctx, referrersTag(d))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("referrers: %w", err)
	}
	return referrersOf(m, nil)
}

// lacksReferrers says whether a registry answered that it has no such request.
func lacksReferrers(err error) bool {
	if errors.Is(err, ErrNotFound) {
		return true
	}
	te, ok := errors.AsType[*transport.Error](err)
	return ok && (te.StatusCode == http.StatusBadRequest || te.StatusCode == http.StatusMethodNotAllowed ||
		te.StatusCode == http.StatusNotImplemented)
}

func (e *endpoint) listReferrers(ctx context.Context, d digest.Digest) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	page := e.url("referrers", d.String())
	for n := 0; page != ""; n++ {
		if n == maxReferrerPages {
			return nil, malformed("referrers of %s: more than %d pages", d, maxReferrerPages)
		}
		m, next, err := e.referrersPage(ctx, page)
		if err != nil {
			return nil, fmt.Errorf("referrers of %s: %w", d, err)
		}
		if list, err = referrersOf(m, list); err != nil {
			return nil, err
		}
		page = next
	}
	return list, nil
}

func (e *endpoint) referrersPage(ctx context.Context, page string) (m Manifest, next string, err error) {
	resp, err := e.get(ctx, page, http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, http.StatusOK)
	if err != nil {
		return m, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return m, "", err
	}
	if len(raw) > MaxManifest {
		return m, "", malformed("more than %d bytes", MaxManifest)
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if m, err = newManifest(raw, strings.TrimSpace(mediaType), ""); err != nil {
		return m, "", err
	}
	next, err = nextPage(page, resp.Header.Get("Link"))
	return m, next, err
}

// nextPage reads the Link header (RFC 8288). The next page must be one of the
// same list: a registry may not send the client, and its token, elsewhere.
func nextPage(page, link string) (string, error) {
	target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if link == "" || !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return "", nil
	}
	base, err := url.Parse(page)
	if err != nil {
		return "", err
	}
	to, err := base.Parse(target)
	if err != nil {
		return "", malformed("link to the next page: %w", err)
	}
	if to.Scheme != base.Scheme || to.Host != base.Host || to.Path != base.Path {
		return "", malformed("the next page of %s is elsewhere, at %.200s", base.Path, to.Redacted())
	}
	return to.String(), nil
}

func referrersOf(m Manifest, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	index, err := m.Index()
	if err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	if list = append(list, index.Manifests...); len(list) > maxReferrers {
		return nil, malformed("more than %d referrers", maxReferrers)
	}
	return list, nil
}
