package hub

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// locations reads what the configuration names by location: kbs:// at the
// broker, file:// or an absolute path in the guest image, whose integrity is
// that of the measured root (guest-protocol 14.1).
type locations struct {
	fetch func(ctx context.Context, uri string) (secret.Bytes, error)
	code  fault.Code // of a location that cannot be read; the broker's refusals keep theirs
}

// read returns at most limit bytes.
func (l locations) read(ctx context.Context, uri string, limit int) (secret.Bytes, error) {
	scheme, path, found := strings.Cut(uri, "://")
	var got secret.Bytes
	var err error
	switch {
	case !found:
		got, err = l.file(uri, limit)
	case scheme == "file":
		got, err = l.file(path, limit)
	case scheme == "kbs", strings.HasPrefix(scheme, "kbs+"):
		got, err = l.fetch(ctx, uri)
	default:
		return got, fault.Newf(l.code, "location %q: want kbs://, file:// or an absolute path", uri)
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	if got.Len() > limit {
		got.Destroy()
		return secret.Bytes{}, fault.Newf(l.code, "%s is larger than %d bytes", uri, limit)
	}
	return got, nil
}

// public reads what is no secret.
func (l locations) public(ctx context.Context, uri string, limit int) ([]byte, error) {
	s, err := l.read(ctx, uri, limit)
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	return bytes.Clone(s.Reveal()), nil
}

func (l locations) file(path string, limit int) (secret.Bytes, error) {
	if !filepath.IsAbs(path) {
		return secret.Bytes{}, fault.Newf(l.code, "path %q is not absolute", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, fault.New(l.code, err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return secret.Bytes{}, fault.New(l.code, fmt.Errorf("read %s: %w", path, err))
	}
	return secret.New(data), nil
}
