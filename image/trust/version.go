package trust

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const maxVersionParts = 6

// A version is a row of numbers with dots between. Nothing else has an order
// that everybody agrees on, so that what is released under an older scheme, a
// date with letters or a pre-release is below every floor.
type version []uint64

func parseVersion(s string) (*version, error) {
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	if len(parts) > maxVersionParts {
		return nil, fmt.Errorf("version %.40q has more than %d parts", s, maxVersionParts)
	}
	var v version
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 63)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return nil, fmt.Errorf("version %.40q: want numbers with dots between", s)
		}
		v = append(v, n)
	}
	return &v, nil
}

// reachedBy says whether a text is a version that is not below v.
func (v version) reachedBy(text string) bool {
	order, ok := v.compare(text)
	return ok && order >= 0
}

// compare says whether a text is a version that is below v (-1), the same (0), or
// above it (1); ok is false if it is none. Missing parts are zero.
func (v version) compare(text string) (order int, ok bool) {
	seen, err := parseVersion(text)
	if err != nil {
		return 0, false
	}
	n := max(len(v), len(*seen))
	pad := func(v version) version { return append(slices.Clone(v), make(version, n-len(v))...) }
	return slices.Compare(pad(*seen), pad(v)), true
}
