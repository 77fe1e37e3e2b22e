package pull

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// A Target is where an image is copied to: a [*registry.Layout].
type Target interface {
	registry.Sink
	// Blob returns a blob that is there already, and fails with
	// [registry.ErrNotFound] otherwise.
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// A Copier copies images without unpacking them. It judges and verifies as a
// [Puller] does, and has no store.
type Copier struct{ p *Puller }

// NewCopier checks the configuration, of which the store is not used.
func NewCopier(c Config) (*Copier, error) {
	p, err := newPuller(c)
	if err != nil {
		return nil, err
	}
	return &Copier{p: p}, nil
}

// Copied is what came of a copy.
type Copied struct {
	Reference string // normalised, as it was judged
	Digest    string // of the platform's manifest
	Written   string // digest of the manifest that was written: Digest, unless layers were decrypted
	Encrypted int    // layers that are, in the copy
	Config    ocispec.ImageConfig
	Verdict   trust.Verdict
}

// Copy brings one platform of an image to the target that open returns, which is
// called when the policy has accepted the image. Encrypted layers are decrypted
// if an unwrapper is configured, and copied as they are otherwise: then nothing
// but their digest is held against them. What the target has already, from an
// attempt that was interrupted, is verified again and not fetched. The manifest
// is written last, so that nothing refers to blobs that did not hold. Errors are
// a [*fault.Fault].
func (c *Copier) Copy(ctx context.Context, name, tag string, open func() (Target, error)) (*Copied, error) {
	progress := &progress{tell: c.p.cfg.Progress, pull: c.p.pulls.Add(1), ref: name}
	done, err := c.copy(ctx, name, tag, open, progress)
	if err != nil {
		return nil, c.p.refuse(ctx, name, progress, err)
	}
	c.p.log.InfoContext(ctx, "image copied", slog.String("reference", done.Reference), slog.String("digest", done.Digest))
	return done, nil
}

func (c *Copier) copy(ctx context.Context, name, tag string, open func() (Target, error), progress *progress) (*Copied, error) {
	i, err := c.p.judge(ctx, name, progress)
	if err != nil {
		return nil, err
	}
	total := progress.accepted(i.resolved)
	config, plans, err := c.p.plan(ctx, i.repo, i.resolved)
	if err != nil {
		return nil, err
	}
	to, err := open()
	if err != nil {
		return nil, err
	}
	j := &copying{job: job{puller: c.p, src: i.repo, progress: progress}, to: to}
	raw, err := j.manifest(i.named(ctx), i.resolved, plans)
	if err != nil {
		return nil, err
	}
	written, err := to.PushManifest(ctx, tag, i.resolved.Manifest.MediaType, raw)
	if err != nil {
		return nil, err
	}
	done := &Copied{
		Reference: i.ref.String(), Digest: i.resolved.Manifest.Digest.String(), Written: written.Digest.String(),
		Config: config, Verdict: i.verdict,
	}
	for _, lp := range plans {
		if lp.encrypted && c.p.cfg.Unwrapper == nil {
			done.Encrypted++
		}
	}
	progress.image(Event{Phase: PhasePulled, Digest: i.resolved.Manifest.Digest, Bytes: j.received.Load(), Total: total})
	return done, nil
}

// copying is the layers of one copy.
type copying struct {
	job
	to Target
}

// manifest copies config and layers, and returns the manifest that names them:
// the same one, unless something was decrypted.
func (j *copying) manifest(ctx context.Context, r *registry.Resolved, plans []layerPlan) ([]byte, error) {
	doc := *r.Image
	doc.Layers = make([]ocispec.Descriptor, len(plans))
	if err := j.config(ctx, r.Image.Config); err != nil {
		return nil, err
	}
	j.puller.enter()
	defer j.puller.leave()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(j.puller.cfg.Parallel)
	for _, i := range largestFirst(plans) {
		group.Go(func() (err error) {
			if doc.Layers[i], err = j.layer(gctx, plans[i]); err != nil {
				j.progress.layer(plans[i], Event{Phase: PhaseFailed, Err: err})
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i := range plans {
		if doc.Layers[i].Digest != plans[i].desc.Digest {
			return json.Marshal(doc)
		}
	}
	return r.Manifest.Raw, nil
}

func (j *copying) config(ctx context.Context, desc ocispec.Descriptor) error {
	blob, err := j.src.Blob(ctx, desc)
	if err != nil {
		return resolveFault(err)
	}
	_, err = j.to.PushBlob(ctx, blob)
	return errors.Join(err, blob.Close())
}

// layer copies one layer and returns its descriptor there.
func (j *copying) layer(ctx context.Context, lp layerPlan) (ocispec.Descriptor, error) {
	there, private := lp, crypt.Private{}
	if lp.encrypted && j.puller.cfg.Unwrapper != nil {
		j.progress.layer(lp, Event{Phase: PhaseKey})
		var err error
		if private, err = j.puller.unwrap(ctx, lp); err != nil {
			return there.desc, fault.New(fault.ImageKey, &LayerError{Digest: lp.desc.Digest.String(), Index: lp.index, What: WhatKey, Err: err})
		}
		defer private.Key.Destroy()
		there = lp.decrypted(private)
	}
	err := j.present(ctx, there)
	if err == nil {
		j.progress.layer(lp, Event{Phase: PhaseCached})
		return there.desc, nil
	}
	if errors.Is(err, registry.ErrNotFound) {
		there.desc, err = j.bring(ctx, lp, there, private)
	}
	if err != nil {
		return there.desc, blobFault(lp.desc.Digest, lp.index, err)
	}
	return there.desc, nil
}
