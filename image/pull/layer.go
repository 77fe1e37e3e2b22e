package pull

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// coresForDecryption is from how many cores on decryption is a stage of its own.
// On fewer, handing the bytes on costs more than it brings.
const coresForDecryption = 3

// layerPlan is one layer of the manifest, all that can be refused without its
// bytes having been refused.
type layerPlan struct {
	index       int
	desc        ocispec.Descriptor
	diffID      digest.Digest
	compression compression
	encrypted   bool
	public      crypt.Public
	keys        []crypt.WrappedKey // of the manifest
	referred    *referred
}

func newLayerPlan(index int, desc ocispec.Descriptor, diffID digest.Digest) (layerPlan, error) {
	p := layerPlan{index: index, desc: desc, diffID: diffID}
	err := registry.CheckDigest(diffID)
	if err == nil {
		p.compression, p.encrypted, err = layerType(desc.MediaType)
	}
	if err == nil && p.encrypted {
		p.public, p.keys, err = crypt.ParseAnnotations(desc.Annotations)
	}
	if err != nil {
		return p, fault.New(fault.ImageMalformed, &LayerError{Digest: desc.Digest.String(), Index: index, What: WhatArchive, Err: err})
	}
	return p, nil
}

// ensure returns the layer, from the store or through the pipeline. The key of
// an encrypted layer is asked for even if the layer is there already: whoever
// may not have the key may not have the content.
func (j *job) ensure(ctx context.Context, lp layerPlan) (*store.Layer, error) {
	key := store.Key{DiffID: lp.diffID}
	var private crypt.Private
	if lp.encrypted {
		j.progress.layer(lp, Event{Phase: PhaseKey})
		err := fault.Contain(func() (err error) {
			private, err = j.puller.unwrap(ctx, lp)
			return err
		})
		if err != nil {
			return nil, fault.New(fault.ImageKey, &LayerError{Digest: lp.desc.Digest.String(), Index: lp.index, What: WhatKey, Err: err})
		}
		defer private.Key.Destroy()
		key.KeyID = private.ID()
	}
	return j.puller.flights.do(ctx, key, func() (*store.Layer, error) {
		layer, ok, err := j.puller.cfg.Store.Acquire(key)
		if ok {
			j.progress.layer(lp, Event{Phase: PhaseCached})
		} else if err == nil {
			layer, err = j.fetchSomewhere(ctx, lp, key, private)
		}
		if err != nil {
			return nil, blobFault(lp.desc.Digest, lp.index, err)
		}
		return layer, nil
	})
}

// fetchSomewhere fetches the layer anew while that was not what it should be and
// there is a mirror left that did not send it.
func (j *job) fetchSomewhere(ctx context.Context, lp layerPlan, key store.Key, private crypt.Private) (*store.Layer, error) {
	for {
		layer, err := j.fetch(ctx, lp, key, private)
		if err == nil || !registry.Elsewhere(j.src, lp.desc, err) {
			return layer, err
		}
	}
}

// fetch runs the pipeline for one layer into a staging directory.
func (j *job) fetch(ctx context.Context, lp layerPlan, key store.Key, private crypt.Private) (*store.Layer, error) {
	staging, err := j.puller.cfg.Store.Stage()
	if err != nil {
		return nil, err
	}
	var unpacked int64
	err = fault.Contain(func() (err error) {
		unpacked, err = j.stream(ctx, lp, private, staging)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, staging.Abort())
	}
	layer, err := staging.Commit(key)
	if err != nil {
		return nil, errors.Join(err, staging.Abort())
	}
	j.received.Add(lp.desc.Size)
	j.progress.layer(lp, Event{Phase: PhaseCommitted, Bytes: lp.desc.Size, Unpacked: unpacked})
	return layer, nil
}

// stream unpacks the layer and returns the size of its archive. It returns no
// error only if length, digest, HMAC and diffID all hold.
//
// Four goroutines work on a layer: one receives, hashes and decrypts; one
// decompresses; one hashes the archive; this one unpacks it, with a fifth for the
// small files. So even a single layer keeps two cores busy. Where there are more,
// decryption and its HMAC have a goroutine of their own.
func (j *job) stream(ctx context.Context, lp layerPlan, private crypt.Private, staging *store.Staging) (int64, error) {
	ctx, giveUp := context.WithCancel(ctx)
	archive := &archiveReader{}
	blob, err := j.open(ctx, lp, archive.count)
	if err != nil {
		giveUp()
		return 0, err
	}
	defer func() { _ = blob.Close() }()
	var checked io.Reader = &transportReader{blob}
	if lp.encrypted {
		if runtime.GOMAXPROCS(0) >= coresForDecryption {
			received, err := readAhead(checked, &j.puller.blocks, ringBlocks, nil)
			if err != nil {
				giveUp()
				return 0, err
			}
			defer received.close()
			checked = received
		}
		if checked, err = crypt.NewDecrypter(checked, lp.public, private); err != nil {
			giveUp()
			return 0, err
		}
	}
	diffID := lp.newDiffID()
	var see func([]byte)
	if lp.compression == plain {
		see = diffID.see()
	}
	authenticated, err := readAhead(checked, &j.puller.blocks, receivedBlocks, see)
	if err != nil {
		giveUp()
		return 0, err
	}
	defer authenticated.close()
	defer giveUp() // before that, so that no read waits for the network
	err = j.puller.unpackInto(ctx, authenticated, archive, lp, diffID, staging, giveUp)
	if !aboutContent(err) {
		return archive.count(), err
	}
	// A later stage stumbled over the content. Let the earlier ones finish: if
	// the bytes are not the ones that were signed, that is the reason.
	if _, earlier := io.Copy(io.Discard, authenticated); earlier != nil {
		return 0, earlier
	}
	return 0, err
}

// open starts to fetch the layer's blob.
func (j *job) open(ctx context.Context, lp layerPlan, unpacked func() int64) (io.ReadCloser, error) {
	body, err := j.src.Blob(ctx, lp.desc)
	if err != nil {
		return nil, &fetchError{err}
	}
	tell := func(received, unpacked int64) {
		j.progress.layer(lp, Event{Phase: PhaseFetching, Bytes: received, Unpacked: unpacked})
	}
	tell(0, 0)
	return &meter{ReadCloser: body, unpacked: unpacked, tell: tell}, nil
}

// aboutContent reports whether err blames the bytes of the layer rather than
// the transport, the disk or the caller's patience.
func aboutContent(err error) bool {
	_, format := errors.AsType[*unpack.FormatError](err)
	_, diffID := errors.AsType[*diffIDError](err)
	return format || diffID || errors.Is(err, errCompression)
}

// unpackInto decompresses, unpacks and compares the diffID. After an error that
// is not about the content it has called giveUp.
func (p *Puller) unpackInto(
	ctx context.Context, authenticated io.Reader, into *archiveReader, lp layerPlan, diffID *diffIDCheck, staging *store.Staging, giveUp func(),
) error {
	compressed := &countingReader{r: authenticated}
	into.r = compressed
	if lp.compression != plain {
		archive, free, err := p.decompress(ctx, compressed, lp.compression)
		if err != nil {
			return err
		}
		defer free()
		decoded, err := readAhead(archive, &p.blocks, decodedBlocks, diffID.see())
		if err != nil {
			giveUp()
			return err
		}
		defer decoded.close()
		into.r = decoded
	}
	err := fault.Contain(func() error {
		_, err := staging.Unpack(ctx, into, p.cfg.Limits)
		return err
	})
	if err == nil { // the decompressor may have stopped before the end of the blob
		_, err = io.Copy(io.Discard, compressed)
	}
	if err == nil {
		err = diffID.hold()
	}
	if err != nil && !aboutContent(err) {
		giveUp()
	}
	return err
}

// hashedAlready reports whether the blob is the archive, whose digest is
// compared when it is received.
func (lp *layerPlan) hashedAlready() bool {
	return lp.compression == plain && !lp.encrypted && lp.desc.Digest == lp.diffID
}

// A diffIDCheck hashes the archive. nil: somebody else hashes the same bytes.
type diffIDCheck struct {
	wanted   digest.Digest
	digester digest.Digester
}

func (lp *layerPlan) newDiffID() *diffIDCheck {
	if lp.hashedAlready() {
		return nil
	}
	return &diffIDCheck{wanted: lp.diffID, digester: lp.diffID.Algorithm().Digester()}
}

// see returns what takes the bytes.
func (d *diffIDCheck) see() func([]byte) {
	if d == nil {
		return nil
	}
	return func(p []byte) { _, _ = d.digester.Hash().Write(p) } // a hash never fails
}

// hold compares, after all bytes have been read.
func (d *diffIDCheck) hold() error {
	if d == nil {
		return nil
	}
	if seen := d.digester.Digest(); seen != d.wanted {
		return &diffIDError{seen: seen, wanted: d.wanted}
	}
	return nil
}

// archiveReader counts an archive that is read.
type archiveReader struct {
	r io.Reader
	n atomic.Int64
}

func (a *archiveReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.n.Add(int64(n))
	return n, err
}

func (a *archiveReader) count() int64 { return a.n.Load() }

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
