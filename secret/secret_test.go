package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

type outer struct {
	Public  string
	private inner
	Ptr     *Bytes
	Slice   []Bytes
	Map     map[string]Bytes
}

type inner struct{ key Bytes }

// A secret must not come out of any printer, however deep it is buried.
func TestNothingPrintsASecret(t *testing.T) {
	const word = "correct horse battery staple"
	s := Copy([]byte(word))
	o := outer{Public: "p", private: inner{s}, Ptr: &s, Slice: []Bytes{s}, Map: map[string]Bytes{"k": s}}

	var out []string
	for _, v := range []any{s, &s, o, &o, []any{o}, map[string]any{"o": o}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b", "%T"} {
			out = append(out, fmt.Sprintf(verb, v))
		}
		var buf bytes.Buffer
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "v", v)
		if err := json.NewEncoder(&buf).Encode(v); err == nil {
			t.Errorf("json.Encode(%T) accepted a secret", v)
		}
		_ = xml.NewEncoder(&buf).Encode(v)
		_ = gob.NewEncoder(&buf).Encode(v)
		out = append(out, buf.String())
	}
	for _, text := range out {
		for _, form := range []string{word, hex.EncodeToString([]byte(word)), strings.ToUpper(hex.EncodeToString([]byte(word))), fmt.Sprint([]byte(word))} {
			if strings.Contains(text, form) {
				t.Fatalf("a printer leaked the secret: %s", text)
			}
		}
	}
}

func TestDestroyClearsEveryCopy(t *testing.T) {
	raw := []byte("key")
	s := New(raw)
	c := s
	s.Destroy()
	if c.Len() != 0 || !bytes.Equal(raw, []byte{0, 0, 0}) {
		t.Fatalf("after Destroy the copy has %d bytes and the buffer is %v", c.Len(), raw)
	}
	Bytes{}.Destroy()
}

func TestEqual(t *testing.T) {
	if !Copy([]byte("a")).Equal(Copy([]byte("a"))) || Copy([]byte("a")).Equal(Copy([]byte("b"))) || Copy([]byte("a")).Equal(Bytes{}) {
		t.Fatal("Equal is wrong")
	}
	if a, b := Random(32), Random(32); a.Equal(b) || a.Len() != 32 {
		t.Fatal("Random repeats itself")
	}
}
