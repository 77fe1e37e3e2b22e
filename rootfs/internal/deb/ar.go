// Package deb reads Debian packages (deb(5)): an ar archive of a tar with the
// files. It runs no maintainer script and keeps no ownership: a package is a
// place to take files from. Packages come from a mirror that nobody trusts; their
// hashes are checked before they get here, and still nothing in them is believed.
package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrPackage says that bytes are no Debian package.
var ErrPackage = errors.New("malformed Debian package")

const (
	arMagic   = "!<arch>\n"
	arHeader  = 60
	arTrailer = "`\n"

	maxMembers = 16
)

// member is one file of an ar archive (deb(5), ar(5)); its content is what
// follows in the reader.
type member struct {
	name string
	size int64
}

// nextMember reads the header of the next member; io.EOF says that there is
// none. The content of the one before, with its padding, must have been read.
func nextMember(r io.Reader) (member, error) {
	header := make([]byte, arHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		if errors.Is(err, io.EOF) {
			return member{}, io.EOF
		}
		return member{}, fmt.Errorf("%w: the header of a member: %w", ErrPackage, err)
	}
	if string(header[58:]) != arTrailer {
		return member{}, fmt.Errorf("%w: no header of a member where one must be", ErrPackage)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	size, err := strconv.ParseUint(strings.TrimRight(string(header[48:58]), " "), 10, 40)
	if err != nil || name == "" {
		return member{}, fmt.Errorf("%w: a member of size %.10q", ErrPackage, header[48:58])
	}
	return member{name, int64(size)}, nil
}

// data positions the reader at the tar with the package's files, and returns
// it limited to its size, with its name, which tells the compression.
func data(r io.Reader) (string, io.Reader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || !bytes.Equal(magic, []byte(arMagic)) {
		return "", nil, fmt.Errorf("%w: it is no ar archive", ErrPackage)
	}
	for i := range maxMembers {
		m, err := nextMember(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, err
		}
		if i == 0 && m.name != "debian-binary" {
			return "", nil, fmt.Errorf("%w: its first member is %.20q", ErrPackage, m.name)
		}
		if strings.HasPrefix(m.name, "data.tar") {
			return m.name, io.LimitReader(r, m.size), nil
		}
		if _, err := io.CopyN(io.Discard, r, m.size+m.size%2); err != nil {
			return "", nil, fmt.Errorf("%w: member %s is cut off", ErrPackage, m.name)
		}
	}
	return "", nil, fmt.Errorf("%w: there is no data.tar in it", ErrPackage)
}
