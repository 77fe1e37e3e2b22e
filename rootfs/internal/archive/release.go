package archive

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// maxRelease is the largest InRelease file that is read, in bytes.
const maxRelease = 16 << 20

// ErrUnsigned says that nobody who is trusted signed a Release file.
var ErrUnsigned = errors.New("not signed by a key of the keyring")

// Keyring is the keys of a distribution.
type Keyring struct{ keys openpgp.EntityList }

// ReadKeyring reads OpenPGP keys, armored or not.
func ReadKeyring(raw []byte) (*Keyring, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return &Keyring{keys}, nil
}

// A Release is what the signed list of an archive's files says.
type Release struct {
	Origin, Suite, Codename string
	sums                    map[string]sum // of files, by their paths below the Release file
}

type sum struct {
	sha256 string // hex
	size   int64
}

// ParseRelease checks the signature of an InRelease file and reads what was
// signed. A list that is no longer valid is refused: an old one, signed once,
// would bring back packages with known holes.
func ParseRelease(raw []byte, keys *Keyring, now time.Time) (*Release, error) {
	if len(raw) > maxRelease {
		return nil, fmt.Errorf("%w: a Release file of %d bytes", ErrIndex, len(raw))
	}
	block, rest := decode(raw)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: it is no clearly signed text", ErrUnsigned)
	}
	if _, err := block.VerifySignature(keys.keys, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	var out *Release
	err := paragraphs(bytes.NewReader(block.Plaintext), func(fields map[string]string) error {
		if out != nil {
			return fmt.Errorf("%w: a Release file of two paragraphs", ErrIndex)
		}
		var err error
		out, err = newRelease(fields, now)
		return err
	})
	if err == nil && out == nil {
		err = fmt.Errorf("%w: an empty Release file", ErrIndex)
	}
	return out, err
}

// decode finds the signed text; nil if there is none.
func decode(raw []byte) (block *clearsign.Block, rest []byte) {
	defer func() {
		// The library panics on a message without a line (go-crypto 1.4.1).
		if recover() != nil {
			block, rest = nil, nil
		}
	}()
	return clearsign.Decode(raw)
}

func newRelease(fields map[string]string, now time.Time) (*Release, error) {
	out := &Release{Origin: fields["Origin"], Suite: fields["Suite"], Codename: fields["Codename"], sums: map[string]sum{}}
	if until := fields["Valid-Until"]; until != "" {
		end, err := time.Parse("Mon, 2 Jan 2006 15:04:05 MST", until)
		if err != nil {
			return nil, fmt.Errorf("%w: Valid-Until: %w", ErrIndex, err)
		}
		if now.After(end) {
			return nil, fmt.Errorf("%w: the list of %s was valid until %s: run apt-get update", ErrIndex, out.Suite, until)
		}
	}
	for line := range strings.Lines(fields["SHA256"]) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("%w: %.80q among the hashes", ErrIndex, line)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		digest, errHex := hex.DecodeString(words[0])
		if err != nil || errHex != nil || len(digest) != 32 || size < 0 {
			return nil, fmt.Errorf("%w: %.80q among the hashes", ErrIndex, line)
		}
		out.sums[words[2]] = sum{words[0], size}
	}
	return out, nil
}

// Lists reports whether the archive has the named file.
func (r *Release) Lists(name string) bool {
	_, ok := r.sums[name]
	return ok
}

// Check returns a reader of the named file of the archive whose last read fails
// unless the content is what was signed.
func (r *Release) Check(name string, content io.Reader) (io.Reader, error) {
	want, ok := r.sums[name]
	if !ok {
		return nil, fmt.Errorf("%w: the Release file of %s does not list %s", ErrIndex, r.Suite, name)
	}
	return newChecked(content, want), nil
}
