package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// whence is what an open blob says of where it comes from.
type whence struct {
	url    string // behind all redirects, so that the registry is not asked for every piece
	tag    string // the entity tag, if that is a strong one
	ranges bool   // range requests are not ruled out
}

func whenceOf(resp *http.Response) whence {
	w := whence{url: resp.Request.URL.String(), tag: resp.Header.Get("Etag"), ranges: resp.Header.Get("Accept-Ranges") != "none"}
	if strings.HasPrefix(w.tag, "W/") {
		w.tag = ""
	}
	return w
}

// A handover is on its way to several connections: the one there is goes on
// until they begin, a little ahead. So nothing is lost where they come to nothing.
type handover struct {
	to *spread // nil: none is under way
	at int64   // offset
}

const (
	handoverGap  = 1 << 20         // bytes that several connections begin ahead
	handoverWait = 5 * time.Second // for their first byte, when it is due
)

// keepPace goes over to another number of connections where that is called for.
func (r *resumer) keepPace(n int, before, after time.Time) {
	if r.over.to != nil {
		if r.offset == r.over.at {
			r.handOver()
		}
		return
	}
	lanes := r.pace.observe(n, before, after)
	switch {
	case r.spread == nil && lanes == 1, r.spread != nil && lanes == r.spread.wanted():
	case lanes == 1:
		if err := r.oneLane(); err != nil {
			r.body = failedBody{err}
		}
	case r.desc.Size-r.offset < worthSpreading || !r.whence.ranges || !r.widen(lanes):
		r.pace.refuse()
	}
}

// widen gets more connections, if the window has room.
func (r *resumer) widen(lanes int) bool {
	if r.spread != nil {
		return r.spread.resize(lanes)
	}
	at, from := r.at, r.whence // as they are now
	r.over.at = r.offset + handoverGap
	r.over.to = newSpread(r.ctx, at.client.window, r.over.at, r.desc.Size, lanes, func(ctx context.Context, first, end int64) (io.ReadCloser, error) {
		return at.piece(ctx, from, first, end, r.desc.Size)
	})
	return r.over.to != nil
}

// handOver goes on over several connections if they have begun to bring what is
// next, and over the one there is if not.
func (r *resumer) handOver() {
	s := r.over.to
	r.over.to = nil
	if !s.begin(r.at.client.cfg.Clock, handoverWait) {
		_ = s.Close()
		r.pace = newPace(1)
		return
	}
	_ = r.body.Close()
	r.body, r.spread, r.implicit = s, s, false
}

// abandon closes what is open.
func (r *resumer) abandon() error {
	if r.over.to != nil {
		_ = r.over.to.Close()
		r.over.to = nil
	}
	return r.body.Close()
}

// oneLane goes back to one connection and stays there.
func (r *resumer) oneLane() error {
	_ = r.abandon()
	r.pace = newPace(1)
	return r.open()
}

// piece asks for the bytes of a blob from one offset to before another. It asks
// once: whoever does not serve pieces now is asked for the rest as a whole.
func (e *endpoint) piece(ctx context.Context, from whence, first, end, size int64) (io.ReadCloser, error) {
	ctx = ofItsOwn(ctx)
	cl, err := e.http(ctx, transport.PullScope)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLanes, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Accept": {"*/*"}, "Range": {fmt.Sprintf("bytes=%d-%d", first, end-1)}}
	resp, err := cl.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLanes, err)
	}
	err = checkPartial(resp, first, end, size)
	if seen := resp.ContentLength; err == nil && seen >= 0 && seen != end-first {
		err = fmt.Errorf("a range of %d bytes has %d", end-first, seen)
	}
	if tag := whenceOf(resp).tag; err == nil && tag != from.tag && tag != "" && from.tag != "" {
		err = errors.New("it is another one by now")
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: %w", errNoLanes, err)
	}
	return resp.Body, nil
}

// failedBody is the body of a blob that could not be opened again.
type failedBody struct{ err error }

func (f failedBody) Read([]byte) (int, error) { return 0, f.err }
func (failedBody) Close() error               { return nil }

// lane marks the requests for pieces of a blob.
type lane struct{}

// ofItsOwn asks for a connection of its own, which HTTP/2 would share with the
// other lanes, and for an answer as it comes, without trying again.
func ofItsOwn(ctx context.Context) context.Context { return context.WithValue(ctx, lane{}, true) }

func isLane(ctx context.Context) bool { return ctx.Value(lane{}) != nil }
