package rcar

import (
	"bytes"
	"crypto"
	"testing"
)

// kbs-protocol 3.7: what evidence is bound to, and what is unsafe.
func TestVersions(t *testing.T) {
	rd := vectorData()
	device, err := DeviceDigest(crypto.SHA384, rd)
	if err != nil {
		t.Fatal(err)
	}
	primary, err := PrimaryDigest(crypto.SHA384, rd, "")
	if err != nil {
		t.Fatal(err)
	}
	for v, c := range map[Version]struct {
		unsafe bool
		want   []byte
	}{V010: {true, device}, V011: {true, device}, V020: {false, device}, V040: {false, primary}} {
		got, err := v.PrimaryDigest(crypto.SHA384, rd, "")
		if err != nil || !bytes.Equal(got, c.want) || v.Unsafe() != c.unsafe || !v.Known() || v.Devices() != (v == V040) {
			t.Errorf("%s: %x, %v", v, got, err)
		}
	}
	for _, v := range []Version{"", "0.3.0", "0.4", "0.4.0 ", "=0.4.0", "0.4.0+x"} {
		if v.Known() {
			t.Errorf("%q is known", v)
		}
	}
}
