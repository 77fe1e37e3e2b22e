package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
)

// shelf pulls what it was told to.
type shelf struct {
	pulled hub.PulledImage
	err    error
	asked  []string
}

func (r *shelf) PullImage(context.Context, string, string) (hub.PulledImage, error) {
	return r.pulled, r.err
}
func (r *shelf) ReleaseImage(context.Context, string) error { return r.err }
func (r *shelf) AskForKeys(_ context.Context, i hub.PulledImage) error {
	r.asked = append(r.asked, i.Keys...)
	return r.err
}

// ledger has the leases that are held.
type ledger struct{ held map[string]lease.Lease }

func (l *ledger) Hold(one lease.Lease) func() {
	l.held[one.Holder] = one
	return func() { delete(l.held, one.Holder) }
}

// The keys of an image are held for its container, from the pull to the release.
func TestKeysOfImagesAreLent(t *testing.T) {
	r, l := &shelf{pulled: hub.PulledImage{Digest: "sha256:1", Keys: []string{"kbs:///a/b/c"}}}, &ledger{held: map[string]lease.Lease{}}
	i := newImages(r, time.Minute, l)
	if img, err := i.PullImage(t.Context(), "app", "/run/vouchsafe/app"); err != nil || img.Digest != "sha256:1" {
		t.Fatal(img, err)
	}
	one, ok := l.held["app"]
	if !ok {
		t.Fatal("no lease is held")
	}
	if err := one.Ask(t.Context()); err != nil || len(r.asked) != 1 || r.asked[0] != "kbs:///a/b/c" {
		t.Fatalf("asked for %v, %v", r.asked, err)
	}
	r.err = errors.New("busy")
	if err := i.ReleaseImage(t.Context(), "/run/vouchsafe/app"); err == nil || len(l.held) != 1 {
		t.Fatal("the lease was given back of an image that is there still")
	}
	if _, err := i.PullImage(t.Context(), "app", "/run/vouchsafe/other"); err == nil || len(l.held) != 1 {
		t.Fatal("a lease is held of what was not pulled")
	}
	r.err = nil
	if err := i.ReleaseImage(t.Context(), "/run/vouchsafe/app"); err != nil || len(l.held) != 0 {
		t.Fatal("the lease is held still")
	}
	r.pulled.Keys = nil
	if _, err := i.PullImage(t.Context(), "plain", "/run/vouchsafe/plain"); err != nil || len(l.held) != 0 {
		t.Fatal("an image without keys holds a lease")
	}
}
