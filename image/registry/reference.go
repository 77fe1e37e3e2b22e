package registry

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	_ "crypto/sha256" // the digest algorithms that references may name
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
)

const (
	dockerHub    = "docker.io"
	defaultTag   = "latest"
	maxReference = 1024 // bytes of a whole reference; the repository alone is limited to 255
	maxRepo      = 255
	maxTag       = 128
)

var (
	hostForm = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	pathForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// A Reference is a normalised image name: docker.io and library/ are spelled
// out, as Docker and containers/image do (guest-protocol 14.3 step 1). Tag and
// Digest may both be empty only in what [ParseNamed] returns.
type Reference struct {
	Host   string // with the port, for example "registry.example.com:5000"
	Path   string // for example "library/alpine"
	Tag    string
	Digest digest.Digest
}

// ParseReference normalises an image name. A name with neither tag nor digest
// gets the tag "latest"; a name with both keeps both, and the digest decides
// what is fetched.
func ParseReference(s string) (Reference, error) {
	r, err := ParseNamed(s)
	if err != nil {
		return Reference{}, err
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	return r, nil
}

// ParseNamed is [ParseReference] without the default tag: signatures may name
// a whole repository.
func ParseNamed(s string) (Reference, error) {
	var r Reference
	if s == "" || len(s) > maxReference {
		return r, fmt.Errorf("image reference of %d bytes: 1 to %d are allowed", len(s), maxReference)
	}
	rest := s
	if before, d, ok := strings.Cut(rest, "@"); ok {
		r.Digest = digest.Digest(d)
		if err := CheckDigest(r.Digest); err != nil {
			return Reference{}, fmt.Errorf("image reference %q: %w", s, err)
		}
		rest = before
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		r.Tag, rest = rest[i+1:], rest[:i]
		if !isTag(r.Tag) {
			return Reference{}, fmt.Errorf("image reference %q: bad tag", s)
		}
	}
	r.Host, r.Path = splitHost(rest)
	if !hostForm.MatchString(r.Host) || !pathForm.MatchString(r.Path) || len(r.Name()) > maxRepo {
		return Reference{}, fmt.Errorf("image reference %q: bad repository name%s", s, whyNot(r))
	}
	return r, nil
}

func isTag(s string) bool { return len(s) <= maxTag && tagForm.MatchString(s) }

// whyNot names the mistakes that people make most.
func whyNot(r Reference) string {
	switch {
	case strings.HasPrefix(r.Path, "https:/") || strings.HasPrefix(r.Path, "http:/"), r.Host == "https:", r.Host == "http:":
		return ", a name has no https:// before it"
	case pathForm.MatchString(strings.ToLower(r.Path)):
		return ", it is written in lower case"
	}
	return ""
}

// splitHost decides whether the first component is a host the way Docker does:
// it has a dot or a port, or is localhost. Hosts are lower-cased, for one host
// must not have two names before a policy.
func splitHost(s string) (host, path string) {
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case ok && (strings.ContainsAny(first, ".:") || first == "localhost"):
		host, path = strings.ToLower(first), rest
	default:
		host, path = dockerHub, s
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = dockerHub
	}
	if host == dockerHub && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return host, path
}

// Name returns host and path, for example "docker.io/library/alpine".
func (r Reference) Name() string { return r.Host + "/" + r.Path }

// Version returns what the registry's manifest endpoint is asked for: the
// digest if there is one, else the tag.
func (r Reference) Version() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// String returns the full normalised name.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// CheckDigest accepts well-formed sha256 and sha512 digests only.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.80q: %w", d, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return errors.New("digest algorithm must be sha256 or sha512")
	}
	return nil
}
