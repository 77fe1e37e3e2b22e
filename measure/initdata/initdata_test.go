package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// kbs-protocol 19, vector 6.
const vector = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"foo\" = \"bar\"\n"

func TestVector(t *testing.T) {
	d, err := Parse([]byte(vector))
	if err != nil {
		t.Fatal(err)
	}
	const want = "5e84ab29bc71980d9af1d809c019baf4ffb1e9f5884400611b5c4374b329ea8f"
	if got := hex.EncodeToString(d.Digest()); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if string(d.Raw()) != vector || d.Algorithm() != "sha256" || d.Data()["foo"] != "bar" || len(d.Data()) != 1 {
		t.Errorf("document came back as %q %q %v", d.Raw(), d.Algorithm(), d.Data())
	}
}

// What a caller does with the returned bytes must not change the digest.
func TestDocumentDoesNotChange(t *testing.T) {
	in := []byte(vector)
	d, err := Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	before := d.Digest()
	in[0], d.Raw()[1], d.Data()["foo"] = '#', '#', "other"
	if !bytes.Equal(before, d.Digest()) || d.Data()["foo"] != "bar" {
		t.Fatal("the document changed under its owner")
	}
}

func TestParse(t *testing.T) {
	const head = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"smallest", head + "[data]\n", ""},
		{"upper case algorithm", "version = \"0.1.0\"\nalgorithm = \"SHA512\"\n[data]\n", ""},
		{"multi-line value", head + "[data]\n\"aa.toml\" = '''\n[x]\ny = 1\n'''\n", ""},
		{"empty", "", "no version"},
		{"no version", "algorithm = \"sha256\"\n[data]\n", "no version"},
		{"no algorithm", "version = \"0.1.0\"\n[data]\n", "no algorithm"},
		{"no data", head, "no [data]"},
		{"other version", "version = \"0.2.0\"\nalgorithm = \"sha256\"\n[data]\n", "not known"},
		{"version is a number", "version = 1\nalgorithm = \"sha256\"\n[data]\n", "parse"},
		{"md5", "version = \"0.1.0\"\nalgorithm = \"md5\"\n[data]\n", "not one of"},
		{"sm3", "version = \"0.1.0\"\nalgorithm = \"sm3\"\n[data]\n", "not one of"},
		{"unknown member", "extra = 1\n" + head + "[data]\n", "parse"},
		{"unknown table", head + "[data]\n[more]\n", "parse"},
		{"number in data", head + "[data]\nn = 1\n", "parse"},
		{"table in data", head + "[data.x]\ny = \"1\"\n", "parse"},
		{"data is a string", head + "data = \"x\"\n", "parse"},
		{"key twice", head + "[data]\nx = \"1\"\nx = \"2\"\n", "parse"},
		{"not TOML", "\x00", "parse"},
		{"not UTF-8", head + "[data]\nx = \"\xff\"\n", "parse"},
		{"too large", strings.Repeat("#", MaxSize+1), "larger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Parse([]byte(c.text))
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "" && string(d.Raw()) != c.text:
				t.Fatalf("raw is %q", d.Raw())
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestFit(t *testing.T) {
	d := bytes.Repeat([]byte{7}, 48)
	if got := Fit(d, SNPHostData); !bytes.Equal(got, d[:32]) {
		t.Errorf("cut to %x", got)
	}
	if got := Fit(d[:3], 5); !bytes.Equal(got, []byte{7, 7, 7, 0, 0}) {
		t.Errorf("filled up to %x", got)
	}
}

func TestDevice(t *testing.T) {
	var dev bytes.Buffer
	if err := WriteDevice(&dev, []byte(vector)); err != nil {
		t.Fatal(err)
	}
	if dev.Len()%sector != 0 || !bytes.HasPrefix(dev.Bytes(), []byte("initdata")) {
		t.Fatalf("device of %d bytes starts with %q", dev.Len(), dev.Bytes()[:8])
	}
	dev.WriteString("the rest of the disk") // a device may be larger than the document
	got, err := ReadDevice(iotest.OneByteReader(&dev))
	if err != nil || string(got) != vector {
		t.Fatalf("read back %q, %v", got, err)
	}
}

func TestDeviceRefuses(t *testing.T) {
	device := func(n uint64, data []byte) []byte {
		return append(binary.LittleEndian.AppendUint64([]byte(magic), n), data...)
	}
	packed := func(raw []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(raw); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	good := packed([]byte(vector))
	bomb := packed(make([]byte, MaxSize+1))
	broken := bytes.Clone(good)
	broken[len(broken)-5] ^= 1 // in the CRC
	twice := append(bytes.Clone(good), good...)
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, ErrNotInitData},
		{"short", []byte("init"), ErrNotInitData},
		{"other disk", make([]byte, 4096), ErrNotInitData},
		{"length beyond the end", device(uint64(len(good)+1), good), io.ErrUnexpectedEOF},
		{"length cuts the data", device(uint64(len(good)-1), good), io.ErrUnexpectedEOF},
		{"huge length", device(1<<63, good), ErrTooLarge},
		{"bomb", device(uint64(len(bomb)), bomb), ErrTooLarge},
		{"no gzip", device(20, make([]byte, 20)), gzip.ErrHeader},
		{"bad checksum", device(uint64(len(broken)), broken), gzip.ErrChecksum},
		{"two members", device(uint64(len(twice)), twice), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadDevice(bytes.NewReader(c.in))
			if err == nil {
				t.Fatalf("accepted as %q", got)
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(vector))
	f.Add([]byte("version = \"0.1.0\"\nalgorithm = \"SHA512\"\n[data]\n\"aa.toml\" = '''\n[t]\n'''\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Raw(), b) {
			t.Fatalf("accepted %q but kept %q", b, d.Raw())
		}
		again, err := Parse(d.Raw())
		if err != nil || !bytes.Equal(again.Digest(), d.Digest()) {
			t.Fatalf("second reading differs: %v", err)
		}
	})
}

func FuzzReadDevice(f *testing.F) {
	var dev bytes.Buffer
	if err := WriteDevice(&dev, []byte(vector)); err != nil {
		f.Fatal(err)
	}
	f.Add(dev.Bytes())
	f.Add([]byte(magic + "\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := ReadDevice(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(raw) > MaxSize {
			t.Fatalf("expanded to %d bytes", len(raw))
		}
		var out bytes.Buffer
		if err := WriteDevice(&out, raw); errors.Is(err, ErrTooLarge) {
			return // accepted because it came in a better packed form
		} else if err != nil {
			t.Fatal(err)
		}
		if again, err := ReadDevice(&out); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("read %q, wrote it, read %q, %v", raw, again, err)
		}
	})
}
