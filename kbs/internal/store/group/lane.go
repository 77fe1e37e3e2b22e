package group

import (
	"hash/crc32"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Lane is a number from 0 to Lanes-1. The keys of a lane share a floor: the
// highest version that a deleted record of one of them had. A new record
// starts above it, so that a writer who saw the old record cannot take a new
// one for it, and yet nothing is kept of a deleted key.
type Lane uint16

// Lanes bounds what deleted keys leave behind. Keys of one folder share a lane,
// so the sessions that come and go do not push up the versions of resources,
// which people look at.
const Lanes = 4096

// LaneOf is part of the stored format: it must never change.
func LaneOf(key string) Lane {
	folder := key[:strings.LastIndexByte(key, '/')+1]
	return Lane(crc32.ChecksumIEEE([]byte(folder)) % Lanes)
}

// Floors are the raised floors of some lanes.
type Floors map[Lane]store.Version

// Raise notes that a record of the key was deleted at version v.
func (f Floors) Raise(key string, v store.Version) {
	if lane := LaneOf(key); f[lane] < v {
		f[lane] = v
	}
}

// After returns the first byte string after all keys that start with prefix.
func After(prefix string) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := []byte(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return []byte{0xff} // no key has this byte, being UTF-8
}
