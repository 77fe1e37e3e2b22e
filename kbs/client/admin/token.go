package admin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// ErrNoToken says that no token file was configured.
var ErrNoToken = errors.New("no token file is configured")

// ErrTokenExposed says that users other than the owner may read a token file.
var ErrTokenExposed = errors.New("the token file can be read by other users")

const maxToken = 16 << 10 // bytes

// ReadToken reads a bearer token from a file. The permissions are taken from the opened
// file, so that nothing can be swapped in between.
func ReadToken(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("token file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("token file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return secret.Bytes{}, fmt.Errorf("token file %s: not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %s has mode %04o", ErrTokenExposed, path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("token file: %w", err)
	}
	if len(b) > maxToken {
		return secret.Bytes{}, fmt.Errorf("token file %s: larger than %d bytes", path, maxToken)
	}
	token, err := ParseToken(b)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("token file %s: %w", path, err)
	}
	return token, nil
}

// ParseToken reads one bearer token, with white space around it.
func ParseToken(text []byte) (secret.Bytes, error) {
	token := bytes.TrimSpace(text)
	if len(token) > maxToken || !legalToken(token) {
		return secret.Bytes{}, errors.New("does not hold one bearer token")
	}
	return secret.New(token), nil
}

// legalToken checks the b64token grammar of RFC 6750 section 2.1.
func legalToken(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case bytes.IndexByte([]byte("-._~+/="), c) >= 0:
		default:
			return false
		}
	}
	return true
}
