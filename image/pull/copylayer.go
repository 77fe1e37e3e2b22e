package pull

import (
	"context"
	"errors"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

// decrypted is the plan of the layer that comes out. Its digest is what whoever
// encrypted it noted beside the key, and may be absent: it serves to find the
// layer, and what is found is verified. The cipher changes no length.
func (lp layerPlan) decrypted(private crypt.Private) layerPlan {
	lp.encrypted = false
	d := ocispec.Descriptor{
		MediaType: strings.TrimSuffix(lp.desc.MediaType, crypt.MediaSuffix), Digest: private.Digest, Size: lp.desc.Size,
		Annotations: crypt.WithoutKeys(lp.desc.Annotations),
	}
	delete(d.Annotations, crypt.AnnotationPublic)
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
	lp.desc = d
	return lp
}

// present verifies the layer that the target has. One that is not there, or not
// what it should be, is registry.ErrNotFound.
func (j *copying) present(ctx context.Context, lp layerPlan) error {
	if registry.CheckDigest(lp.desc.Digest) != nil {
		return registry.ErrNotFound
	}
	blob, err := j.to.Blob(ctx, lp.desc)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }()
	if _, err = io.Copy(io.Discard, j.vouched(ctx, blob, lp)); err != nil {
		return registry.ErrNotFound // it is written anew
	}
	return nil
}

// bring fetches a layer, decrypts it if it is to be, and writes it. It is visible
// in the target if length, digest, HMAC and diffID held, as far as each can be
// seen.
func (j *copying) bring(ctx context.Context, lp, there layerPlan, private crypt.Private) (ocispec.Descriptor, error) {
	for {
		desc, err := j.write(ctx, lp, there, private)
		if err == nil {
			j.received.Add(lp.desc.Size)
			j.progress.layer(lp, Event{Phase: PhaseCommitted, Bytes: lp.desc.Size})
		}
		if err == nil || !registry.Elsewhere(j.src, lp.desc, err) {
			return desc, err
		}
	}
}

func (j *copying) write(ctx context.Context, lp, there layerPlan, private crypt.Private) (ocispec.Descriptor, error) {
	blob, err := j.open(ctx, lp, func() int64 { return 0 })
	if err != nil {
		return there.desc, err
	}
	defer func() { _ = blob.Close() }()
	var plain io.Reader = &transportReader{blob}
	if there.encrypted != lp.encrypted {
		if plain, err = crypt.NewDecrypter(plain, lp.public, private); err != nil {
			return there.desc, err
		}
	}
	v := j.vouched(ctx, plain, there)
	wrote, err := j.to.PushBlob(ctx, v)
	_ = v.stop(errors.New("nothing follows")) // what it found has been given already, or does not matter
	there.desc.Digest, there.desc.Size = wrote.Digest, wrote.Size
	return there.desc, err
}

// vouched is the layer's bytes as they are. Another goroutine decompresses them
// meanwhile and compares the diffID; the end is given only if that held. What is
// encrypted passes as it is. Whoever calls it reads to the end or to an error,
// or calls stop.
func (j *copying) vouched(ctx context.Context, r io.Reader, lp layerPlan) *vouchedReader {
	v := &vouchedReader{r: r}
	if lp.encrypted {
		return v
	}
	check, w := io.Pipe()
	v.w, v.verdict = w, make(chan error, 1)
	go func() {
		err := fault.Contain(func() error { return j.puller.hold(ctx, check, lp) })
		// Earlier stages may have the better reason, so the stream goes on to its end.
		_, _ = io.Copy(io.Discard, check)
		v.verdict <- err
	}()
	return v
}

// hold compares the diffID of the layer that r reads. An archive that would be too
// long to unpack is refused like there: it costs time, if no disk.
func (p *Puller) hold(ctx context.Context, r io.Reader, lp layerPlan) error {
	compressed := &countingReader{r: r}
	var archive io.Reader = compressed
	if lp.compression != plain {
		z, free, err := p.decompress(ctx, compressed, lp.compression)
		if err != nil {
			return err
		}
		defer free()
		archive = z
	}
	digester := lp.diffID.Algorithm().Digester()
	_, err := io.Copy(digester.Hash(), p.cfg.Limits.Bound(archive))
	if err == nil { // the decompressor may have stopped before the end of the blob
		_, err = io.Copy(io.Discard, compressed)
	}
	if err == nil && digester.Digest() != lp.diffID {
		err = &diffIDError{seen: digester.Digest(), wanted: lp.diffID}
	}
	return err
}

type vouchedReader struct {
	r       io.Reader
	w       *io.PipeWriter // nil: nothing is compared, or the comparison is over
	verdict chan error
	err     error // sticky
}

func (v *vouchedReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	if v.w != nil && n > 0 {
		if _, werr := v.w.Write(p[:n]); werr != nil { // only after stop
			err = werr
		}
	}
	if err == nil {
		return n, nil
	}
	if v.err = err; errors.Is(err, io.EOF) {
		if verdict := v.stop(nil); verdict != nil {
			v.err = verdict
			return 0, v.err
		}
	} else {
		_ = v.stop(err) // the stream's own reason counts
	}
	return n, v.err
}

// stop ends the comparison, which sees the reason where the stream is not whole,
// and returns its outcome.
func (v *vouchedReader) stop(reason error) error {
	if v.w == nil {
		return nil
	}
	_ = v.w.CloseWithError(reason) // nil: io.EOF
	v.w = nil
	return <-v.verdict
}
