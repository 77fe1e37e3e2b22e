package efi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

// An image that is accepted can be hashed, and no section reaches beyond it.
func FuzzParsePE(f *testing.F) {
	f.Add(boottest.Image(boottest.Section{Name: ".text", Data: []byte("code")}))
	f.Add([]byte("MZ"))
	f.Add(emptySection())
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := efi.ParsePE(raw)
		if err != nil {
			return
		}
		h := sha256.New()
		counted := &counter{}
		if err := p.Authenticode(h); err != nil {
			t.Fatal(err)
		}
		if err := p.Authenticode(counted); err != nil || counted.n > len(raw) {
			t.Fatalf("%d bytes of %d are hashed, %v", counted.n, len(raw), err)
		}
		if all, err := p.Certificates(); err == nil && len(bytes.Join(all, nil)) > len(raw) {
			t.Fatalf("%d certificates are more than the image", len(all))
		}
		for _, s := range p.Sections() {
			if contents, err := p.Contents(s.Name); err == nil && len(contents) > len(raw) {
				t.Fatalf("section %q has %d bytes", s.Name, len(contents))
			}
		}
	})
}

// emptySection is an image whose section has no bytes in the file, and a place far
// behind its end.
func emptySection() []byte {
	raw := boottest.Image(boottest.Section{Name: ".bss"})
	at := bytes.Index(raw, []byte(".bss"))
	binary.LittleEndian.PutUint32(raw[at+20:], 0x7fff_fff0)
	return raw
}

func TestEmptySection(t *testing.T) {
	p, err := efi.ParsePE(emptySection())
	if err != nil {
		t.Fatal(err)
	}
	if contents, err := p.Contents(".bss"); err != nil || len(contents) != 0 {
		t.Errorf("%x, %v", contents, err)
	}
}

type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) { c.n += len(b); return len(b), nil }

// A partition table that is accepted is one of the disk's own bytes.
func FuzzGPTData(f *testing.F) {
	f.Add(disk())
	f.Fuzz(func(t *testing.T, raw []byte) {
		data, err := efi.GPTData(raw)
		if err == nil && (len(data) < 100 || !bytes.Contains(raw, data[:92])) {
			t.Fatalf("%x", data)
		}
	})
}
