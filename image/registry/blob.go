package registry

import (
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// verifyReader passes a blob through and ends in io.EOF only if the blob had
// exactly the length and the digest of its descriptor. Bytes handed out before
// that are unverified: a consumer must read to the end before it believes any.
type verifyReader struct {
	src      io.ReadCloser
	desc     ocispec.Descriptor
	digester digest.Digester
	blame    func() // called once if the blob is not the one described; nil: there is nobody to blame
	read     int64
	err      error // sticky
}

func newVerifyReader(src io.ReadCloser, desc ocispec.Descriptor, blame func()) *verifyReader {
	return &verifyReader{src: src, desc: desc, digester: desc.Digest.Algorithm().Digester(), blame: blame}
}

func (v *verifyReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	// One byte more than is due may be read, to notice a body that goes on.
	if due := v.desc.Size - v.read + 1; int64(len(p)) > due {
		p = p[:due]
	}
	n, err := v.src.Read(p)
	v.read += int64(n)
	if v.read > v.desc.Size {
		v.err = v.verdict()
		return 0, v.err
	}
	_, _ = v.digester.Hash().Write(p[:n]) // a hash never fails
	if err != nil {
		v.err = err
		if errors.Is(err, io.EOF) {
			v.err = v.verdict()
		}
	}
	return n, v.err
}

// verdict is io.EOF for the blob of the descriptor.
func (v *verifyReader) verdict() error {
	blamed := v.blame != nil
	var err error
	switch seen := v.digester.Digest(); {
	case v.read != v.desc.Size:
		err = &SizeError{Digest: v.desc.Digest, Wanted: v.desc.Size, Seen: v.read, blamed: blamed}
	case seen != v.desc.Digest:
		err = &DigestError{What: "blob", Wanted: v.desc.Digest, Seen: seen, blamed: blamed}
	default:
		return io.EOF
	}
	if blamed {
		v.blame()
	}
	return err
}

func (v *verifyReader) Close() error { return v.src.Close() }

// maxBlob bounds what a descriptor may claim, in bytes.
const maxBlob = 1 << 42

// checkDescriptor refuses descriptors that could not be verified.
func checkDescriptor(desc ocispec.Descriptor) error {
	if err := CheckDigest(desc.Digest); err != nil {
		return malformed("%w", err)
	}
	if desc.Size < 0 || desc.Size > maxBlob {
		return malformed("blob %s claims %d bytes", desc.Digest, desc.Size)
	}
	return nil
}
