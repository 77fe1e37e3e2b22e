package pull

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// layerPlan is one layer of the manifest, all that can be refused without its
// bytes having been refused.
type layerPlan struct {
	index       int
	desc        ocispec.Descriptor
	diffID      digest.Digest
	compression compression
	encrypted   bool
	public      crypt.Public
	packets     [][]byte
}

func newLayerPlan(index int, desc ocispec.Descriptor, diffID digest.Digest) (layerPlan, error) {
	p := layerPlan{index: index, desc: desc, diffID: diffID}
	err := registry.CheckDigest(diffID)
	if err == nil {
		p.compression, p.encrypted, err = layerType(desc.MediaType)
	}
	if err == nil && p.encrypted {
		p.public, p.packets, err = crypt.ParseAnnotations(desc.Annotations)
	}
	if err != nil {
		return p, fault.New(fault.ImageMalformed, &LayerError{Digest: desc.Digest.String(), Index: index, What: WhatArchive, Err: err})
	}
	return p, nil
}

// ensure returns the layer, from the store or through the pipeline. The key of
// an encrypted layer is asked for even if the layer is there already: whoever
// may not have the key may not have the content.
func (p *Puller) ensure(ctx context.Context, src registry.Source, lp layerPlan) (*store.Layer, error) {
	key := store.Key{DiffID: lp.diffID}
	var private crypt.Private
	if lp.encrypted {
		var err error
		if private, err = p.unwrap(ctx, lp); err != nil {
			return nil, fault.New(fault.ImageKey, &LayerError{Digest: lp.desc.Digest.String(), Index: lp.index, What: WhatKey, Err: err})
		}
		defer private.Key.Destroy()
		key.KeyID = private.ID()
	}
	return p.flights.do(ctx, key, func() (*store.Layer, error) {
		layer, ok, err := p.cfg.Store.Acquire(key)
		if !ok && err == nil {
			layer, err = p.fetch(ctx, src, lp, key, private)
		}
		if err != nil {
			return nil, blobFault(lp.desc.Digest, lp.index, err)
		}
		return layer, nil
	})
}

// unwrap tries the packets of the layer in order.
func (p *Puller) unwrap(ctx context.Context, lp layerPlan) (crypt.Private, error) {
	if p.cfg.Unwrapper == nil {
		return crypt.Private{}, errors.New("the layer is encrypted and nothing can unwrap keys")
	}
	var errs []error
	for _, packet := range lp.packets {
		doc, err := p.cfg.Unwrapper.Unwrap(ctx, packet)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		private, err := crypt.ParsePrivate(doc)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return private, nil
	}
	return crypt.Private{}, errors.Join(errs...)
}

// fetch runs the pipeline for one layer into a staging directory.
func (p *Puller) fetch(ctx context.Context, src registry.Source, lp layerPlan, key store.Key, private crypt.Private) (*store.Layer, error) {
	staging, err := p.cfg.Store.Stage()
	if err != nil {
		return nil, err
	}
	if err := p.stream(ctx, src, lp, private, staging.Dir()); err != nil {
		return nil, errors.Join(err, staging.Abort())
	}
	layer, err := staging.Commit(key)
	if err != nil {
		return nil, errors.Join(err, staging.Abort())
	}
	return layer, nil
}

// stream unpacks the layer into dir. It returns nil only if length, digest,
// HMAC and diffID all hold.
func (p *Puller) stream(ctx context.Context, src registry.Source, lp layerPlan, private crypt.Private, dir string) error {
	body, err := src.Blob(ctx, lp.desc)
	if err != nil {
		return &fetchError{err}
	}
	defer func() { _ = body.Close() }()
	var authenticated io.Reader = &transportReader{body}
	if lp.encrypted {
		if authenticated, err = crypt.NewDecrypter(authenticated, lp.public, private); err != nil {
			return err
		}
	}
	err = p.unpackInto(ctx, authenticated, lp, dir)
	if !aboutContent(err) {
		return err
	}
	// A later stage stumbled over the content. Let the earlier ones finish: if
	// the bytes are not the ones that were signed, that is the reason.
	if _, earlier := io.Copy(io.Discard, authenticated); earlier != nil {
		return earlier
	}
	return err
}

// aboutContent reports whether err blames the bytes of the layer rather than
// the transport, the disk or the caller's patience.
func aboutContent(err error) bool {
	_, format := errors.AsType[*unpack.FormatError](err)
	_, diffID := errors.AsType[*diffIDError](err)
	return format || diffID || errors.Is(err, errCompression)
}

func (p *Puller) unpackInto(ctx context.Context, authenticated io.Reader, lp layerPlan, dir string) error {
	compressed := &countingReader{r: authenticated}
	archive, free, err := decompress(compressed, lp.compression, p.cfg.LibraryGzip)
	if err != nil {
		return err
	}
	defer free()
	digester := lp.diffID.Algorithm().Digester()
	if _, err := unpack.Apply(ctx, io.TeeReader(archive, digester.Hash()), dir, p.cfg.Limits); err != nil {
		return err
	}
	// The decompressor may have stopped before the end of the blob.
	if _, err := io.Copy(io.Discard, compressed); err != nil {
		return err
	}
	if seen := digester.Digest(); seen != lp.diffID {
		return &diffIDError{seen: seen, wanted: lp.diffID}
	}
	return nil
}

// transportReader marks errors that are neither a wrong digest nor a wrong
// length as failures of the transport.
type transportReader struct{ r io.Reader }

func (t *transportReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	_, isDigest := errors.AsType[*registry.DigestError](err)
	_, isSize := errors.AsType[*registry.SizeError](err)
	if isDigest || isSize {
		return n, err
	}
	return n, &fetchError{err}
}
