package rcar

import (
	"crypto"
	"slices"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// Version of the protocol that a guest speaks (kbs-protocol 3.7). There was no
// release with 0.3.0.
type Version string

// The versions, oldest first.
const (
	V010 Version = "0.1.0"
	V011 Version = "0.1.1"
	V020 Version = "0.2.0"
	V040 Version = api.ProtocolVersion
)

// Versions returns all versions, newest first.
func Versions() []Version { return []Version{V040, V020, V011, V010} }

// Known reports whether v is one of [Versions].
func (v Version) Known() bool { return slices.Contains(Versions(), v) }

// Unsafe reports whether answers of the version use PKCS#1 v1.5: it must be
// switched on by name.
func (v Version) Unsafe() bool { return v == V010 || v == V011 }

// Devices reports whether the version has evidence of additional devices, and
// with it the nonce and the init-data in the answer.
func (v Version) Devices() bool { return v == V040 }

// PrimaryDigest returns the digest that the evidence of the CPU must contain.
// Before 0.4.0 it was that of any device.
func (v Version) PrimaryDigest(h crypto.Hash, rd api.RuntimeData, additionalEvidence string) ([]byte, error) {
	if v.Devices() {
		return PrimaryDigest(h, rd, additionalEvidence)
	}
	return DeviceDigest(h, rd)
}
