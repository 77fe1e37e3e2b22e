package efi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/efi"
)

func TestSignatureList(t *testing.T) {
	owner := efi.NewGUID(1, 2, 3, 4)
	want := []efi.Signature{{Kind: efi.CertX509, Owner: owner, Data: []byte("a certificate")}, {Kind: efi.CertSHA256, Owner: owner, Data: make([]byte, 32)}}
	raw := append(efi.SignatureList(want[0]), efi.SignatureList(want[1])...)
	got, err := efi.ParseSignatureLists(raw)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range want {
		if got[i].Kind != want[i].Kind || got[i].Owner != owner || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if empty, err := efi.ParseSignatureLists(nil); err != nil || len(empty) != 0 {
		t.Errorf("%+v, %v", empty, err)
	}
	for name, bad := range map[string][]byte{
		"cut": raw[:len(raw)-1], "a header alone": raw[:27], "entries that are none": patched(raw, 24, 16), "a size that does not fit": patched(raw, 24, 5),
		"beyond the end": patched(raw, 16, 1<<31), "a header beyond the list": patched(raw, 20, 0xffff_ffff), "too large": make([]byte, efi.MaxSignatures+1),
	} {
		if _, err := efi.ParseSignatureLists(bad); !errors.Is(err, efi.ErrSignatureList) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func patched(raw []byte, at int, value uint32) []byte {
	out := bytes.Clone(raw)
	binary.LittleEndian.PutUint32(out[at:], value)
	return out
}

// What is read and written again is the same, if each entry has a list of its own.
func FuzzSignatureLists(f *testing.F) {
	f.Add(efi.SignatureList(efi.Signature{Kind: efi.CertX509, Data: []byte("a certificate")}))
	f.Add(patched(efi.SignatureList(efi.Signature{Data: make([]byte, 255)}), 20, 0xffff_ffff))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := efi.ParseSignatureLists(raw)
		if err != nil {
			return
		}
		var out []byte
		for _, s := range all {
			out = append(out, efi.SignatureList(s)...)
		}
		again, err := efi.ParseSignatureLists(out)
		if len(out) > efi.MaxSignatures {
			return // lists of many entries are shorter than many lists
		}
		if err != nil || len(again) != len(all) {
			t.Errorf("%d entries become %d, %v", len(all), len(again), err)
		}
	})
}

// A signature is found where it was put, and there is one place for it.
func TestCertificates(t *testing.T) {
	plain := boottest.Image(boottest.Section{Name: ".text", Data: []byte("code")})
	p, err := efi.ParsePE(plain)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := p.WithCertificate([]byte("a signature of odd length"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := efi.ParsePE(signed)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Certificates()
	if err != nil || len(all) != 1 || !bytes.HasPrefix(all[0], []byte("a signature of odd length")) {
		t.Errorf("%q, %v", all, err)
	}
	if _, err := s.WithCertificate(nil); !errors.Is(err, efi.ErrPE) {
		t.Errorf("a second one: %v", err)
	}
	for _, size := range []uint32{0, 7, 1 << 20, 0xffff_ffff} {
		other, err := efi.ParsePE(patched(signed, len(plain), size))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Certificates(); !errors.Is(err, efi.ErrPE) {
			t.Errorf("a certificate of %d bytes: %v", size, err)
		}
	}
}
