package tokenkey

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestThereAndBack(t *testing.T) {
	var pipe bytes.Buffer
	want := []any{
		&Open{Module: "/usr/lib/m.so", Which: Which{Token: "t", Serial: "7", Slot: new(uint)}, Use: ToSign, Object: "o", ID: []byte{0, '\n', 255}, PIN: []byte("12\n34")},
		&Opened{Public: []byte("der")}, &Decrypt{Hash: SHA1, Sealed: bytes.Repeat([]byte{9}, 512)}, &Decrypted{Error: "no\nkey"}, &Sign{Hash: SHA384, Digest: bytes.Repeat([]byte{1}, 48)}, &Signed{Signature: []byte{0, 255}},
		&Sign{Hash: SHA256, Digest: make([]byte, 32), PSS: true}, &Sign{Message: make([]byte, MaxMessage)},
	}
	for _, v := range want {
		if err := Send(&pipe, v); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&pipe)
	for _, v := range want {
		got := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := Receive(r, got); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%+v, %v, want %+v", got, err, v)
		}
	}
	if err := Receive(r, &Open{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"cut":            `{"hash":"sha1"`,
		"another member": `{"hash":"sha1","label":"x"}` + "\n",
		"no object":      "7\n",
		"no name":        `{"":"x"}` + "\n",
		"a name twice":   `{"hash":"sha1","hash":"sha256"}` + "\n",
		"in capitals":    `{"HASH":"sha1"}` + "\n",
		"more behind it": `{"hash":"sha1"} {"hash":"sha256"}` + "\n",
		"too long":       `{"hash":"` + strings.Repeat("x", MaxLine) + `"}` + "\n",
	} {
		if err := Receive(NewReader(strings.NewReader(text)), &Decrypt{}); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Send(io.Discard, Decrypt{Sealed: make([]byte, MaxLine)}); err == nil {
		t.Error("a document was sent that nobody reads")
	}
}

// keeps is a writer that holds on to what it was given.
type keeps struct{ got []byte }

func (k *keeps) Write(p []byte) (int, error) {
	k.got = p
	return len(p), nil
}

// What was sent may be a PIN, however long: nothing of it stays.
func TestNothingIsLeftOfWhatWasSent(t *testing.T) {
	for n := range 300 {
		var w keeps
		if err := Send(&w, Open{Which: Which{Token: strings.Repeat("t", n%16)}, PIN: bytes.Repeat([]byte("7"), n)}); err != nil {
			t.Fatal(err)
		}
		if left := bytes.Trim(w.got, "\x00\n"); len(left) > 0 {
			t.Fatalf("of a PIN of %d bytes: %q", n, left)
		}
	}
}

// What is read means the same when it is written and read again, and whatever it
// is, no more than one line is taken.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"hash":"sha256","sealed":"AAAA"}`+"\n"), []byte("rest"))
	f.Add([]byte(strings.Repeat("x", 255)), []byte{})
	f.Add(bytes.Repeat([]byte{'{'}, MaxLine), []byte("\n"))
	f.Fuzz(func(t *testing.T, text, rest []byte) {
		r := NewReader(io.MultiReader(bytes.NewReader(text), bytes.NewReader(rest)))
		var first, again Decrypt
		if Receive(r, &first) != nil {
			return
		}
		line, _, found := bytes.Cut(append(bytes.Clone(text), rest...), []byte("\n"))
		if !found || len(line) >= MaxLine {
			t.Fatalf("%d bytes were taken for a document", len(line))
		}
		var pipe bytes.Buffer
		if Send(&pipe, first) != nil {
			return // escaping made it longer
		}
		if err := Receive(NewReader(&pipe), &again); err != nil || again.Hash != first.Hash || !bytes.Equal(again.Sealed, first.Sealed) {
			t.Fatalf("%+v, then %+v, %v", first, again, err)
		}
	})
}
