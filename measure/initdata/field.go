package initdata

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrField means that the launch of this guest is bound to other init-data
// than was given.
var ErrField = errors.New("init-data is not what the launch is bound to")

// CompareField compares the digest of a document with the launch field of the
// platform, after [Fit]. A nil digest means that none was given, and then the
// field must be zero: a host that merely withholds the document must not get
// the guest's defaults instead. Errors wrap [ErrField].
func CompareField(field, digest []byte) error {
	want := Fit(digest, len(field))
	switch {
	case bytes.Equal(field, want):
		return nil
	case digest == nil:
		return fmt.Errorf("%w: it is bound to %x, but none was given", ErrField, field)
	}
	return fmt.Errorf("%w: the digest is %x, the launch is bound to %x", ErrField, digest, field)
}
