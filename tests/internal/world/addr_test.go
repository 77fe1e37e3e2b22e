package world

import (
	"net"
	"testing"
)

// Addresses differ, and can be listened on.
func TestFreeAddr(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		addr, err := freeAddr()
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil || seen[addr] {
			t.Fatalf("%s: %v, seen before: %t", addr, err, seen[addr])
		}
		t.Cleanup(func() { _ = ln.Close() })
		seen[addr] = true
	}
}
