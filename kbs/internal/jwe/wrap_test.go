package jwe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 3394, sections 4.1, 4.2, 4.3, 4.5 and 4.6.
func TestWrapVectors(t *testing.T) {
	tests := []struct{ name, kek, key, want string }{
		{"128 under 192", "000102030405060708090a0b0c0d0e0f1011121314151617", "00112233445566778899aabbccddeeff", "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"},
		{"128 under 128", "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
		{"128 under 256", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff", "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"},
		{"192 under 256", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff0001020304050607", "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"},
		{"256 under 256", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f", "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kek, key := unhex(t, tt.kek), unhex(t, tt.key)
			got, err := wrapKey(kek, key)
			if err != nil || hex.EncodeToString(got) != tt.want {
				t.Fatalf("got %x, %v", got, err)
			}
			back, err := unwrapKey(kek, got)
			if err != nil || !bytes.Equal(back, key) {
				t.Fatalf("unwrapped %x, %v", back, err)
			}
			for i := range got {
				bad := bytes.Clone(got)
				bad[i] ^= 0x80
				if _, err := unwrapKey(kek, bad); !errors.Is(err, ErrOpen) {
					t.Fatalf("byte %d changed: %v", i, err)
				}
			}
		})
	}
	for _, n := range []int{0, 8, 15, 17} {
		if _, err := wrapKey(make([]byte, 32), make([]byte, n)); err == nil {
			t.Errorf("wrapped %d bytes", n)
		}
		if _, err := unwrapKey(make([]byte, 32), make([]byte, n)); err == nil {
			t.Errorf("unwrapped %d bytes", n)
		}
	}
}

// RFC 7518, appendix C.
func TestConcatKDFVector(t *testing.T) {
	z := []byte{158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196}
	if got := encode(concatKDF(z, "A128GCM", []byte("Alice"), []byte("Bob"), 128)); got != "VqqN6vgjbSBcIijNcacQGg" {
		t.Fatalf("got %s", got)
	}
}
