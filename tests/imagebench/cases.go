package main

import "strings"

type format string

const (
	gzipped      format = "gzip"
	zstandard    format = "zstd"
	uncompressed format = "none"
)

type size string

const (
	ten    size = "10-layers"
	single size = "1-layer"
	large  size = "14-layers"
)

// A testCase is an image in one form, and where it goes.
type testCase struct {
	size      size
	format    format
	encrypted bool
	disk      bool // ext4 in a fresh file, not tmpfs
	slow      bool // the registry gives each connection slowRate
}

func (c testCase) name() string {
	words := []string{string(c.size), string(c.format), "plain", "tmpfs"}
	if c.encrypted {
		words[2] = "encrypted"
	}
	if c.disk {
		words[3] = "disk"
	}
	if c.slow {
		words = append(words, "slow connections")
	}
	return strings.Join(words, "/")
}

// cases lists what is measured, the plain form of an image before its encrypted
// one: the gate on what decryption may cost compares the two.
func cases() []testCase {
	var all []testCase
	for _, f := range []format{gzipped, zstandard, uncompressed} {
		for _, disk := range []bool{false, true} {
			for _, encrypted := range []bool{false, true} {
				all = append(all, testCase{size: ten, format: f, encrypted: encrypted, disk: disk})
			}
		}
	}
	for _, s := range []size{single, large} {
		for _, encrypted := range []bool{false, true} {
			all = append(all, testCase{size: s, format: gzipped, encrypted: encrypted})
		}
	}
	return append(all, testCase{size: single, format: gzipped, slow: true})
}

// A gate says how many times as fast as another tool ours must be.
type gate struct {
	against    kind
	gate, goal float64
}

// gate is that of the case: encrypted images are held against what Debian ships
// or, for zstd, which it cannot decrypt in time, against the same tools built
// with a current Go; plain ones against the fastest of all.
func (c testCase) gate() gate {
	switch {
	case c.slow:
		return gate{against: oneConnection, gate: 2.5, goal: 3.5}
	case c.encrypted && c.format == zstandard:
		return gate{against: rebuilt, gate: 2.9, goal: 3.8}
	case c.encrypted:
		return gate{against: debian, gate: 4, goal: 4.5}
	case c.size == single:
		return gate{against: anyPeer, gate: 1.4, goal: 2.1}
	case c.format == zstandard:
		return gate{against: anyPeer, gate: 1.1, goal: 1.3}
	}
	return gate{against: anyPeer, gate: 1.3, goal: 1.5}
}

// The gates that every case has.
const (
	gateCeiling  = 0.75 // of the speed that the parts allow
	gateRSS      = 48e6 // bytes, ours
	gateSmallRSS = 32e6 // in the setting for small guests
	gateSmall    = 0.90 // of the speed without it (report.kept)
	gateDecrypt  = 1.20 // times the CPU time of the plain pull (report.decryption)
	gateLanes    = 1.10 // times as long as over one connection, where that is not what takes the time
)
