package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func TestCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kbs")
	fetch := func(_ context.Context, uri string) (secret.Bytes, error) {
		if uri == "kbs:///a/b/none" {
			return secret.Bytes{}, errors.New("no such resource")
		}
		return secret.New([]byte(uri)), nil
	}
	at := func(name, uri string) settings.Credential {
		return settings.Credential{ResourceURI: uri, Path: settings.CredentialDir + "/" + name}
	}
	if err := fetchCredentials(t.Context(), nil, dir, fetch); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a directory without credentials")
	}
	for range 2 { // an agent that starts again
		if err := fetchCredentials(t.Context(), []settings.Credential{at("one", "kbs:///a/b/1"), at("kms/aws/two", "kbs:///a/b/2")}, dir, fetch); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"one": "kbs:///a/b/1", "kms/aws/two": "kbs:///a/b/2"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		fi, serr := os.Stat(filepath.Join(dir, name))
		if err != nil || serr != nil || string(raw) != want || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v", name, raw, errors.Join(err, serr))
		}
	}
	if err := fetchCredentials(t.Context(), []settings.Credential{at("three", "kbs:///a/b/none")}, dir, fetch); err == nil {
		t.Error("a credential that cannot be had does not end the start")
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := fetchCredentials(t.Context(), []settings.Credential{at("out/four", "kbs:///a/b/4")}, dir, fetch); err == nil {
		t.Error("written through a link out of the directory")
	}
}
