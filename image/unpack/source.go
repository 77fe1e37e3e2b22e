package unpack

import (
	"errors"
	"io"
)

// maxHeaders is how many bytes one entry's headers may have together: PAX
// records, long names and sparse maps, of which the library limits each one to
// 1 MiB but not their number.
const maxHeaders = 4 << 20

// source is the archive as a stream of bytes. It counts them, stops when the
// caller gives up, and remembers an error of the stream, so that it is not
// mistaken for a fault of the archive.
type source struct {
	r       io.Reader
	stop    func() error // of the context
	err     error        // of the stream
	left    int64        // bytes that the archive may still have
	limit   int64
	headers int64 // bytes that the present entry's headers may still have; -1 in content
	headed  int64 // bytes of the present entry's headers
}

func (s *source) Read(p []byte) (int, error) {
	if s.err = s.stop(); s.err != nil {
		return 0, s.err
	}
	switch {
	case s.left <= 0:
		return 0, refuse("", "the archive is longer than %d bytes", s.limit)
	case s.headers == 0:
		return 0, refuse("", "the headers of one entry are longer than %d bytes", maxHeaders)
	case s.headers > 0:
		p = p[:min(int64(len(p)), s.headers)]
	}
	p = p[:min(int64(len(p)), s.left)]
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if s.headers > 0 {
		s.headers -= int64(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// header runs next, which reads one entry's headers, within their limit.
func (s *source) header(next func() error) error {
	s.headers = maxHeaders
	err := next()
	s.headed, s.headers = maxHeaders-s.headers, -1
	return err
}
