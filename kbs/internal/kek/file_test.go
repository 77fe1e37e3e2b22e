package kek

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func TestMasterKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "master")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load of nothing: %v", err)
	}
	key, err := LoadOrCreate(path)
	if err != nil || key.Len() != 32 {
		t.Fatalf("create: %d bytes, %v", key.Len(), err)
	}
	again, err := LoadOrCreate(path)
	if err != nil || !again.Equal(key) {
		t.Fatalf("the second load gave another key, %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}

// Brokers that start at once agree on one key.
func TestMasterKeyRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master")
	keys := make([]secret.Bytes, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadOrCreate(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, k := range keys {
		if !k.Equal(keys[0]) {
			t.Errorf("broker %d has another key", i)
		}
	}
}

func TestMasterKeyFilesThatAreRefused(t *testing.T) {
	good := secret.Random(32).Reveal()
	for _, tt := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{"group may read", good, 0o640},
		{"world may read", good, 0o604},
		{"group may write", good, 0o620},
		{"empty", nil, 0o600},
		{"short", good[:31], 0o600},
		{"long", append(bytes.Clone(good), '\n'), 0o600},
		{"zeros", make([]byte, 32), 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master")
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrCreate(path); !errors.Is(err, ErrFile) {
				t.Fatalf("load: %v, want ErrFile", err)
			}
			now, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(now, tt.content) {
				t.Fatalf("the file was changed, %v", err)
			}
		})
	}
	if _, err := LoadOrCreate(t.TempDir()); err == nil {
		t.Error("a folder was taken for a key")
	}
	if _, err := LoadOrCreate(filepath.Join(t.TempDir(), "no", "master")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}
