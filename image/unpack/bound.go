package unpack

import "io"

// Bound returns an archive that ends in a [*FormatError] where [Apply] would find
// it too long: for those who read archives and unpack none.
func (l Limits) Bound(archive io.Reader) io.Reader {
	most := l.filled().Archive
	return &source{r: archive, stop: func() error { return nil }, left: most, limit: most, headers: -1}
}
