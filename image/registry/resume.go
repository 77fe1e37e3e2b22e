package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoResume says that a blob broke off and that the registry would not send
// the rest of it, only the whole again. What was read before is with the
// consumer already, so the read cannot start anew.
var ErrNoResume = errors.New("the registry does not resume blobs")

// headway is how many bytes a connection must bring to count as getting ahead.
// Without it a registry could keep a pull alive with a byte a time.
const headway = 1 << 20

// resumer reads a blob and, when the connection breaks or stalls, goes on with
// a range request where it stopped. Whether the parts belong together is not
// its concern: the digest over all of them judges.
type resumer struct {
	ctx      context.Context
	desc     ocispec.Descriptor
	at       *endpoint
	left     []*endpoint // not asked yet
	sent     []*endpoint // bytes of it, or nothing at all, in this order
	failed   failures
	body     io.ReadCloser
	implicit bool  // the body's end is only the connection's end
	offset   int64 // bytes handed out
	mark     int64 // offset at the last break
	failures int   // in a row without headway

	pace   pace
	spread *spread // the body, while there are several connections
	over   handover
	whence whence // of the body that is open, or was last
}

// newResumer opens the blob.
func newResumer(ctx context.Context, repo *Repository, desc ocispec.Descriptor) (*resumer, error) {
	order := repo.order(true) // never empty: what is no mirror has everything
	if right := repo.suspects.without(desc.Digest, order); len(right) > 0 {
		order = right
	}
	r := &resumer{ctx: ctx, desc: desc, at: order[0], left: order[1:], failed: failures{origin: repo.origin()}, pace: newPace(maxLanes)}
	if cause := r.open(); cause != nil {
		if err := r.elsewhere(cause); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// elsewhere goes on at the next endpoint that has the blob. cause is why the
// one before was left.
func (r *resumer) elsewhere(cause error) error {
	for {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		r.failed.add(r.at, cause)
		if len(r.left) == 0 {
			return r.failed.err()
		}
		r.at, r.left, r.failures = r.left[0], r.left[1:], 0
		r.pace = newPace(maxLanes)
		if cause = r.open(); cause == nil {
			return nil
		}
	}
}

// Read never returns an error together with bytes, except at the end.
func (r *resumer) Read(p []byte) (int, error) {
	clock := r.at.client.cfg.Clock
	for {
		before := clock.Now()
		if r.over.to != nil && len(p) > 0 {
			p = p[:min(int64(len(p)), r.over.at-r.offset)]
		}
		n, err := r.body.Read(p)
		r.offset += int64(n)
		if err == nil {
			r.keepPace(n, before, clock.Now())
		}
		if (n > 0 || errors.Is(err, io.EOF)) && (len(r.sent) == 0 || r.sent[len(r.sent)-1] != r.at) {
			r.sent = append(r.sent, r.at)
		}
		short := r.offset < r.desc.Size
		if errors.Is(err, io.EOF) && short && r.implicit {
			err = io.ErrUnexpectedEOF
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if !short { // all bytes came, only the end of the message did not
			return n, io.EOF
		}
		if errors.Is(err, errNoLanes) {
			err = r.oneLane()
		}
		if err != nil {
			if again := r.resume(err); again != nil {
				return n, again
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// resume replaces the broken body. cause is why it broke.
func (r *resumer) resume(cause error) error {
	_ = r.abandon()
	r.pace.restart()
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if r.offset-r.mark >= headway {
		r.failures = 0
	}
	r.mark = r.offset
	r.failures++
	cfg := &r.at.client.cfg
	if r.failures < cfg.Retry.Attempts {
		if err := cfg.Clock.Sleep(r.ctx, cfg.Retry.wait(r.failures)); err != nil {
			return err
		}
		err := r.open()
		if err == nil {
			return nil
		}
		cause = fmt.Errorf("%w, and: %w", cause, err)
	}
	if err := r.elsewhere(cause); err != nil {
		return fmt.Errorf("broken off at byte %d of %d: %w", r.offset, r.desc.Size, err)
	}
	return nil
}

// open asks for everything from the offset on.
func (r *resumer) open() error {
	r.body, r.spread = http.NoBody, nil
	header := http.Header{"Accept": {"*/*"}}
	want := http.StatusOK
	if r.offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.offset, r.desc.Size-1)) // open ranges are not understood by all
		want = http.StatusPartialContent
	}
	resp, err := r.at.get(r.ctx, r.at.url("blobs", r.desc.Digest.String()), header, http.StatusOK, want)
	if err != nil {
		return err
	}
	if r.offset > 0 {
		err = checkPartial(resp, r.offset, r.desc.Size, r.desc.Size)
	}
	if seen := r.offset + resp.ContentLength; err == nil && resp.ContentLength >= 0 && seen != r.desc.Size {
		err = &SizeError{Digest: r.desc.Digest, Wanted: r.desc.Size, Seen: min(seen, r.desc.Size+1)}
	}
	if err != nil {
		_ = resp.Body.Close()
		return err
	}
	r.body, r.whence = resp.Body, whenceOf(resp)
	r.implicit = resp.ProtoMajor == 1 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
	return nil
}

// Close gives the connection up.
func (r *resumer) Close() error { return r.abandon() }
