// Package given reads the files that a person names to a command: documents up to a
// size, whatever their kind says (a pipe and a device tell none), and private keys,
// which nobody else may be able to read. All commands of the project read by it,
// so that the same mistake is answered by the same words.
package given

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// File reads a file of at most limit bytes.
func File(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return Reader(f, name, limit)
}

// Reader reads all of a reader, at most limit bytes; the name is for the error.
func Reader(r io.Reader, name string, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return raw, nil
}

// An Exposed error is a secret that others may have read.
type Exposed struct {
	Name string
	Mode fs.FileMode
}

func (e *Exposed) Error() string {
	return fmt.Sprintf("%s can be read by other users (mode %04o): chmod 600 %s, or make a new one: this one may have been read", e.Name, e.Mode.Perm(), e.Name)
}

// Secret reads a file of at most limit bytes that only its owner may read. One
// that others can read is an [Exposed] error.
func Secret(name string, limit int64) (secret.Bytes, error) {
	f, err := os.Open(name)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, &Exposed{name, info.Mode()}
	}
	raw, err := Reader(f, name, limit)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(raw), nil
}
