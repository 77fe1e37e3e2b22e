package efi_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/efi"

	"github.com/vouchsafe-cc/vouchsafe/measure/internal/evidencetest"
)

func TestGUID(t *testing.T) {
	const text = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	g, err := efi.ParseGUID(text)
	if err != nil || g != efi.GlobalVariable || g.String() != text {
		t.Errorf("%s, %v", g, err)
	}
	if !bytes.Equal(g[:6], []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93}) {
		t.Errorf("in memory: %x", g[:])
	}
	for _, bad := range []string{"", "8be4df61-93ca-11d2-aa0d-00e098032b8", "8be4df6193ca-11d2-aa0d-00e098032b8c-", "x" + text[1:]} {
		if _, err := efi.ParseGUID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// Authenticode digests that osslsigncode computes, of images and of their
// signed forms.
func TestAuthenticode(t *testing.T) {
	var vectors map[string]struct {
		SHA256 string `json:"authenticode_sha256"`
		SHA384 string `json:"authenticode_sha384"`
		Signed string `json:"signed_file"`
	}
	if err := json.Unmarshal(evidencetest.File(t, "launch", "own", "authenticode", "expected.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 3 {
		t.Fatalf("only %d vectors", len(vectors))
	}
	for plain, want := range vectors {
		for _, name := range []string{plain, want.Signed} {
			p, err := efi.ParsePE(evidencetest.File(t, "launch", "own", "authenticode", name))
			if err != nil {
				t.Fatal(name, err)
			}
			h2, h3 := sha256.New(), sha512.New384()
			if err := errors.Join(p.Authenticode(h2), p.Authenticode(h3)); err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(h2.Sum(nil)) != want.SHA256 || hex.EncodeToString(h3.Sum(nil)) != want.SHA384 {
				t.Errorf("%s: %x", name, h2.Sum(nil))
			}
		}
	}
}
