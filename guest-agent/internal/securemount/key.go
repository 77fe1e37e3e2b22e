package securemount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxKey bounds a key in bytes; the field's are 4096 at most.
const maxKey = 64 << 10

// lent reports whether somebody outside the guest gave the key.
func (v *volume) lent() bool { return v.key != "" && !strings.HasPrefix(v.key, "file:") }

// findKey fetches the key of a persistent volume. The caller owns it.
func (m *Mounter) findKey(ctx context.Context, where string) (key secret.Bytes, err error) {
	isFile := strings.HasPrefix(where, "file:")
	switch {
	case isFile:
		key, err = readKey(where)
	case m.keys == nil:
		return key, fault.New(fault.Unavailable, errors.New("no broker is configured"))
	case sealed.Is(where):
		key, err = m.keys.Unseal(ctx, where)
	case strings.HasPrefix(where, "kbs:") || strings.HasPrefix(where, "kbs+"):
		key, err = m.keys.Resource(ctx, where)
	default:
		return key, invalid("the key is neither a kbs:// URI nor a sealed secret nor file:///PATH")
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	if key.Len() == 0 || key.Len() > maxKey {
		key.Destroy()
		return secret.Bytes{}, fault.Newf(fault.VolumeRefused, "a key of %d bytes", key.Len())
	}
	return key, nil
}

// readKey reads file:///PATH of the guest's own files.
func readKey(uri string) (secret.Bytes, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host != "" || !strings.HasPrefix(u.Path, "/") {
		return secret.Bytes{}, invalid("the key's location is not file:///PATH")
	}
	f, err := os.Open(u.Path)
	if err != nil {
		return secret.Bytes{}, fault.New(fault.NotFound, fmt.Errorf("the key: %w", err))
	}
	defer func() { _ = f.Close() }()
	// One buffer, so that no copies of the key are left by its growing.
	b := make([]byte, maxKey+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		return secret.Bytes{}, fmt.Errorf("the key: %w", err)
	}
	return secret.New(b[:n]), nil
}
