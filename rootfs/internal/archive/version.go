package archive

import (
	"cmp"
	"strings"
)

// Compare orders two versions as Debian does (Debian Policy 5.6.12): epoch,
// upstream version and revision.
func Compare(a, b string) int {
	aEpoch, aRest := epoch(a)
	bEpoch, bRest := epoch(b)
	if c := comparePart(aEpoch, bEpoch); c != 0 {
		return c
	}
	aUp, aRev := revision(aRest)
	bUp, bRev := revision(bRest)
	return cmp.Or(comparePart(aUp, bUp), comparePart(aRev, bRev))
}

func epoch(v string) (string, string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		return e, rest
	}
	return "0", v
}

func revision(v string) (string, string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, "0"
}

// comparePart compares parts without digits and numbers in turns.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a = split(a, false)
		y, b = split(b, false)
		if c := compareText(x, y); c != 0 {
			return c
		}
		x, a = split(a, true)
		y, b = split(b, true)
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
	}
	return 0
}

func split(s string, digits bool) (string, string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}

// compareText puts a tilde before the end, and letters before all else.
func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(weight(a, i), weight(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func weight(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}
