package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// ErrHash says that a file is not the one that was meant.
var ErrHash = errors.New("the content is another one")

// checked hands content on, and an error instead of its end if it was not what
// its hash says. Nothing that was read may be used before the end.
type checked struct {
	r    io.Reader
	hash hash.Hash
	left int64
	want string
}

func newChecked(r io.Reader, want sum) io.Reader {
	return &checked{r: r, hash: sha256.New(), left: want.size, want: want.sha256}
}

// NewChecked returns a reader of r's content whose end comes only if that was of
// this size and SHA-256 (in hex); otherwise an error that wraps [ErrHash].
func NewChecked(r io.Reader, size int64, sha string) io.Reader {
	return newChecked(r, sum{sha, size})
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if c.left < 0 {
		return 0, fmt.Errorf("%w: it is longer than it should be", ErrHash)
	}
	_, _ = c.hash.Write(p[:n]) // a hash never fails
	if errors.Is(err, io.EOF) {
		if c.left > 0 {
			return n, fmt.Errorf("%w: %d bytes are missing", ErrHash, c.left)
		}
		if got := hex.EncodeToString(c.hash.Sum(nil)); got != c.want {
			return n, fmt.Errorf("%w: its SHA-256 is %s, wanted %s", ErrHash, got, c.want)
		}
	}
	return n, err
}
