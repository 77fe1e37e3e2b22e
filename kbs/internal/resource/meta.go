package resource

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Limits of what is said about a resource.
const (
	maxText   = 256 // bytes of owner, purpose, content type and hold
	maxLabels = 32
	maxLabel  = 128 // bytes of a label's value
	maxImages = 256
	maxImage  = 512 // bytes
)

// ErrMeta says that what is said about a resource is not well formed.
var ErrMeta = errors.New("resource: malformed metadata")

var (
	labelName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$`)
	imageDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	// imageScope is a repository with its registry, or a part of it: no tag, no
	// digest, no upper case in the path.
	imageScope = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
)

// CheckMeta returns an error that wraps ErrMeta and names the member.
func CheckMeta(m api.ResourceMeta) error {
	texts := map[string]string{"owner": m.Owner, "purpose": m.Purpose, "content_type": m.ContentType, "hold": m.Hold}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if err := checkText(name, texts[name], maxText); err != nil {
			return err
		}
	}
	if len(m.Labels) > maxLabels {
		return fmt.Errorf("%w: more than %d labels", ErrMeta, maxLabels)
	}
	for k, v := range m.Labels {
		if !labelName.MatchString(k) {
			return fmt.Errorf("%w: label %.64q is not a name", ErrMeta, k)
		}
		if err := checkText("label "+k, v, maxLabel); err != nil {
			return err
		}
	}
	if len(m.Images) > maxImages {
		return fmt.Errorf("%w: more than %d images", ErrMeta, maxImages)
	}
	for _, i := range m.Images {
		if len(i) > maxImage || (!imageDigest.MatchString(i) && !imageScope.MatchString(i)) || strings.HasPrefix(i, "sha256:") != imageDigest.MatchString(i) {
			return fmt.Errorf("%w: image %.128q is neither sha256:<hex> nor a repository", ErrMeta, i)
		}
	}
	return nil
}

func checkText(name, text string, limit int) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(text) > limit || !utf8.ValidString(text) || strings.ContainsFunc(text, bad) {
		return fmt.Errorf("%w: %s must be at most %d bytes of printable text", ErrMeta, name, limit)
	}
	return nil
}

// normal returns m as it is stored: times to the microsecond, an order for
// what has none.
func normal(m api.ResourceMeta) api.ResourceMeta {
	m.Labels, m.Images = maps.Clone(m.Labels), slices.Clone(m.Images)
	slices.Sort(m.Images)
	m.Images = slices.Compact(m.Images)
	if !m.Expires.IsZero() {
		m.Expires = m.Expires.UTC().Truncate(time.Microsecond)
	}
	return m
}

// Image is what a guest says that it wants a key for: the digest of the
// manifest, and the reference it was asked to pull.
type Image struct {
	Digest    string // sha256:<hex>, or ""
	Reference string // registry/repository[:tag][@digest], or ""
}

// Known reports whether the guest named an image at all.
func (i Image) Known() bool { return i.Digest != "" || i.Reference != "" }

// covers reports whether an entry of ResourceMeta.Images names the image.
func (i Image) covers(entry string) bool {
	if imageDigest.MatchString(entry) {
		return i.Digest == entry
	}
	repo := repository(i.Reference)
	return repo != "" && (repo == entry || strings.HasPrefix(repo, entry+"/"))
}

// repository strips tag and digest from a reference; "" if what remains is not
// a repository.
func repository(reference string) string {
	repo, _, _ := strings.Cut(reference, "@")
	if slash, colon := strings.LastIndexByte(repo, '/'), strings.LastIndexByte(repo, ':'); colon > slash {
		repo = repo[:colon]
	}
	if len(repo) > maxImage || !imageScope.MatchString(repo) {
		return ""
	}
	return repo
}
