package simdir

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestKeysAndFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vendor")
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := Key("a.key", key)
	if err != nil {
		t.Fatal(err)
	}
	about, err := JSON("a.json", map[string]int{"n": 7})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, secret, about); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "a.key"))
	if err != nil || info.Mode().Perm() != Private {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	if got, err := ReadECDSA(dir, "a.key"); err != nil || !got.Equal(key) {
		t.Errorf("another key: %v", err)
	}
	var v map[string]int
	if err := ReadJSON(dir, "a.json", &v); err != nil || v["n"] != 7 {
		t.Errorf("%v, %v", v, err)
	}
	if err := Write(dir, secret); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key is overwritten: %v", err)
	}
	if _, err := ReadECDSA(dir, "a.json"); err == nil {
		t.Error("JSON is a key")
	}
	if err := ReadJSON(dir, "a.key", &v); err == nil {
		t.Error("a key is JSON")
	}
}
