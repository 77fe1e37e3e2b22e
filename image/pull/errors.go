package pull

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/unpack"
)

// What can be wrong with a layer, in the order in which it is checked.
const (
	WhatFetch   = "fetch"
	WhatSize    = "size"
	WhatDigest  = "digest"
	WhatHMAC    = "hmac"
	WhatDiffID  = "diffid"
	WhatKey     = "key"
	WhatArchive = "archive"
	WhatStore   = "store"
)

// A LayerError is the private cause of a refusal over one layer, or over the
// config or manifest, whose Index is -1.
type LayerError struct {
	Digest string // of the blob, as the manifest names it
	Index  int    // in the manifest, from 0
	What   string // one of the What constants
	Seen   string
	Wanted string
	Err    error // the error beneath, if there is one
}

func (e *LayerError) Error() string {
	s := fmt.Sprintf("layer %d (%s): %s", e.Index, e.Digest, e.What)
	if e.Index < 0 {
		s = fmt.Sprintf("%s: %s", e.Digest, e.What)
	}
	if e.Wanted != "" || e.Seen != "" {
		return s + fmt.Sprintf(": is %s, not %s", e.Seen, e.Wanted)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the error beneath.
func (e *LayerError) Unwrap() error { return e.Err }

// blobFault turns an error of the pipeline into the refusal for it.
func blobFault(d digest.Digest, index int, err error) error {
	le := &LayerError{Digest: d.String(), Index: index, Err: err}
	code := fault.Internal
	if x, ok := errors.AsType[*registry.DigestError](err); ok {
		code, le.What, le.Seen, le.Wanted = fault.ImageCorrupt, WhatDigest, x.Seen.String(), x.Wanted.String()
	} else if x, ok := errors.AsType[*registry.SizeError](err); ok {
		code, le.What, le.Seen, le.Wanted = fault.ImageCorrupt, WhatSize, fmt.Sprint(x.Seen), fmt.Sprint(x.Wanted)
	} else if x, ok := errors.AsType[*crypt.HMACError](err); ok {
		code, le.What, le.Seen, le.Wanted = fault.ImageCorrupt, WhatHMAC, x.Seen, x.Wanted
	} else if x, ok := errors.AsType[*diffIDError](err); ok {
		code, le.What, le.Seen, le.Wanted = fault.ImageCorrupt, WhatDiffID, x.seen.String(), x.wanted.String()
	} else if _, ok := errors.AsType[*unpack.FormatError](err); ok || errors.Is(err, errCompression) {
		code, le.What = fault.ImageMalformed, WhatArchive
	} else if errors.Is(err, registry.ErrMalformed) {
		code, le.What = fault.ImageMalformed, WhatFetch
	} else if _, ok := errors.AsType[*fetchError](err); ok || interrupted(err) {
		code, le.What = fault.ImageUnavailable, WhatFetch
	} else if _, ok := errors.AsType[*fault.Panic](err); ok {
		le.What = WhatArchive
	} else {
		le.What = WhatStore
	}
	return fault.New(code, le)
}

// interrupted reports that the caller gave up or ran out of time.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// fetchError marks an error of the transport between the registry and us.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

type diffIDError struct{ seen, wanted digest.Digest }

func (e *diffIDError) Error() string {
	return fmt.Sprintf("diffID is %s, not %s", e.seen, e.wanted)
}

// errCompression marks a stream that is not what its media type says.
var errCompression = errors.New("bad compressed stream")

// resolveFault classifies errors of manifests and the config.
func resolveFault(err error) error {
	if x, ok := errors.AsType[*registry.DigestError](err); ok {
		return blobFault(x.Wanted, -1, err)
	}
	if x, ok := errors.AsType[*registry.SizeError](err); ok {
		return blobFault(x.Digest, -1, err)
	}
	if errors.Is(err, registry.ErrMalformed) {
		return fault.New(fault.ImageMalformed, err)
	}
	return fault.New(fault.ImageUnavailable, err)
}
