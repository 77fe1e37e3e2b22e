package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Why a value is not released although the policy allowed it.
var (
	// ErrHeld says that an administrator holds the resource back.
	ErrHeld = errors.New("resource: held back")
	// ErrExpired says that the resource's time is over.
	ErrExpired = errors.New("resource: expired")
	// ErrImage says that the value is for another image than the guest named,
	// or that it named none.
	ErrImage = errors.New("resource: not for this image")
)

// Wish is what a guest asks for beside a path.
type Wish struct {
	Version int64 // 0 is the current one
	Image   Image
}

// A Withheld error says why a value is not released. It wraps one of ErrHeld,
// ErrExpired and ErrImage; what it says is for administrators.
type Withheld struct {
	Why     error
	Finding api.Finding
}

// Error names the finding.
func (w *Withheld) Error() string {
	return fmt.Sprintf("%v: %s is %q", w.Why, w.Finding.Claim, w.Finding.Seen)
}

// Unwrap returns the reason.
func (w *Withheld) Unwrap() error { return w.Why }

// Release returns a value that may go to a guest, or a *Withheld. It is the
// only way out for values: whoever calls Get has to ask Releasable himself.
func Release(ctx context.Context, from Backend, p Path, w Wish, now time.Time) (Item, error) {
	item, err := from.Get(ctx, p, w.Version)
	if err != nil {
		return Item{}, err
	}
	if err := Releasable(item.Info.ResourceMeta, w.Image, now); err != nil {
		item.Value.Destroy()
		return Item{Info: item.Info}, err
	}
	return item, nil
}

// Releasable returns a *Withheld unless a value of this description may go to
// a guest that named this image.
func Releasable(m api.ResourceMeta, i Image, now time.Time) error {
	if m.Hold != "" {
		return &Withheld{ErrHeld, api.Finding{Claim: "resource.hold", Seen: m.Hold}}
	}
	if !m.Expires.IsZero() && !now.Before(m.Expires) {
		return &Withheld{ErrExpired, api.Finding{
			Claim: "resource.expires", Seen: m.Expires.UTC().Format(time.RFC3339), Wanted: []string{"after " + now.UTC().Format(time.RFC3339)},
		}}
	}
	if len(m.Images) == 0 || slices.ContainsFunc(m.Images, i.covers) {
		return nil
	}
	return &Withheld{ErrImage, api.Finding{Claim: "image", Seen: i.String(), Wanted: slices.Clone(m.Images[:min(len(m.Images), maxShown)])}}
}

// maxShown bounds how many images a ticket lists.
const maxShown = 16

// String is how tickets show an image.
func (i Image) String() string {
	switch {
	case !i.Known():
		return "no image named"
	case i.Reference == "":
		return i.Digest
	case i.Digest == "":
		return i.Reference
	}
	return i.Digest + " of " + i.Reference
}

// ParseImage checks what a guest named. An error wraps ErrMeta.
func ParseImage(digest, reference string) (Image, error) {
	if digest != "" && !imageDigest.MatchString(digest) {
		return Image{}, fmt.Errorf("%w: image is not sha256:<hex>", ErrMeta)
	}
	if reference != "" && repository(reference) == "" {
		return Image{}, fmt.Errorf("%w: image reference is malformed", ErrMeta)
	}
	return Image{digest, reference}, nil
}
