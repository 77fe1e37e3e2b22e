package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Sink is where an image is written: a [*Repository] or a [*Layout].
type Sink interface {
	// PushBlob stores everything that r holds and returns its digest and size.
	// It stores nothing under that digest if r fails before its end.
	PushBlob(ctx context.Context, r io.Reader) (ocispec.Descriptor, error)
	// PushManifest stores a manifest under a tag, or under its own digest if
	// the tag is empty.
	PushManifest(ctx context.Context, tag, mediaType string, raw []byte) (Manifest, error)
}

// measure counts and digests what passes.
type measure struct {
	r        io.Reader
	digester digest.Digester
	n        int64
}

func newMeasure(r io.Reader) *measure { return &measure{r: r, digester: digest.SHA256.Digester()} }

func (m *measure) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	_, _ = m.digester.Hash().Write(p[:n])
	return n, err
}

func (m *measure) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: m.digester.Digest(), Size: m.n}
}

// PushBlob streams a blob in one upload session (distribution spec, "Pushing a
// blob in chunks" with a single chunk), because its digest is known only at
// its end.
func (r *Repository) PushBlob(ctx context.Context, body io.Reader) (ocispec.Descriptor, error) {
	desc, err := r.pushBlob(ctx, body)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push a blob to %s: %w", r.ref.Name(), err)
	}
	return desc, nil
}

func (r *Repository) pushBlob(ctx context.Context, body io.Reader) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	location, err := r.send(ctx, http.MethodPost, r.home.url("blobs", "uploads")+"/", "", nil, http.StatusAccepted)
	if err != nil {
		return none, err
	}
	m := newMeasure(body)
	location, err = r.send(ctx, http.MethodPatch, location, "application/octet-stream", m, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return none, err
	}
	u, err := url.Parse(location)
	if err != nil {
		return none, err
	}
	desc := m.descriptor()
	q := u.Query()
	q.Set("digest", desc.Digest.String())
	u.RawQuery = q.Encode()
	if _, err := r.send(ctx, http.MethodPut, u.String(), "application/octet-stream", nil, http.StatusCreated); err != nil {
		return none, err
	}
	return desc, nil
}

// PushManifest stores raw under the tag, or under its digest.
func (r *Repository) PushManifest(ctx context.Context, tag, mediaType string, raw []byte) (Manifest, error) {
	m, err := newManifest(raw, mediaType, "")
	if err != nil {
		return Manifest{}, err
	}
	if tag == "" {
		tag = m.Digest.String()
	}
	if _, err := r.send(ctx, http.MethodPut, r.home.url("manifests", tag), mediaType, bytes.NewReader(raw), http.StatusCreated, http.StatusOK); err != nil {
		return Manifest{}, fmt.Errorf("push manifest %s to %s: %w", tag, r.ref.Name(), err)
	}
	return m, nil
}

// send makes one request with push scope and returns the absolute Location of
// the answer, if it has one.
func (r *Repository) send(ctx context.Context, method, target, contentType string, body io.Reader, want ...int) (string, error) {
	cl, err := r.home.http(ctx, transport.PushScope)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return "", err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := cl.Do(req)
	if err != nil {
		return "", answered(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := answered(transport.CheckError(resp, want...)); err != nil {
		return "", err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // lets the connection be used again
	loc := resp.Header.Get("Location")
	if loc == "" {
		return target, nil
	}
	next, err := resp.Request.URL.Parse(loc)
	if err != nil {
		return "", fmt.Errorf("upload location: %w", err)
	}
	return next.String(), nil
}
