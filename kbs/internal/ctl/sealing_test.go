package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms"
	"github.com/vouchsafe-cc/vouchsafe/kbs/sealed/kms/kmstest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// shipper is somebody who seals, in a folder of his own.
type shipper struct {
	t   *testing.T
	dir string
}

func newShipper(t *testing.T) shipper {
	t.Helper()
	s := shipper{t, t.TempDir()}
	private, _, err := ship.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s.file("owner.key", string(private.Reveal()))
	s.file("value", "the value")
	return s
}

func (s shipper) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s shipper) json(name string, v any) string {
	s.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.file(name, string(raw))
}

func (s shipper) seal(args ...string) (text, said string, exit int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"seal", "--sign", filepath.Join(s.dir, "owner.key"), "--kid", "kbs:///prod/signing/owner"}, args...)
	exit = Run(s.t.Context(), args, func(string) string { return "" }, Stdio{In: strings.NewReader(""), Out: &out, Err: &errs})
	return strings.TrimSpace(out.String()), errs.String(), exit
}

// opened is what a guest gets that has the credential.
func opened(t *testing.T, at *kmstest.Service, text string) string {
	t.Helper()
	p, err := sealed.UnsafeOpenUnsigned(text)
	if err != nil {
		t.Fatal(err)
	}
	o := kms.New(kms.Config{Files: at.Files, Fetch: func(_ context.Context, uri string) (secret.Bytes, error) {
		return secret.Copy([]byte(at.Resources[uri])), nil
	}})
	defer o.Close()
	v, err := o.Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return string(v.Reveal())
}

func TestSealElsewhere(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *kmstest.Service{
		"vault": kmstest.Vault, "aws": kmstest.AWS, "gcp": kmstest.GCP, "azure": kmstest.Azure, "aliyun": kmstest.Aliyun,
	} {
		t.Run(name, func(t *testing.T) {
			at, s := start(t), newShipper(t)
			settings := s.json("settings", at.Settings)
			credential := s.file("credential", at.Resources[kmstest.CredentialURI])
			text, said, exit := s.seal(at.Secret("app"), "--provider", name, "--settings", settings)
			if exit != fault.ExitOK || opened(t, at, text) != kmstest.Value {
				t.Fatalf("exit %d: %s", exit, said)
			}
			if at.Calls() == 0 {
				t.Fatal("a guest got it without the service")
			}
			envelope := []string{"--value", filepath.Join(s.dir, "value"), "--provider", name, "--settings", settings, "--credential", credential}
			text, said, exit = s.seal(append(envelope, "--key-id", at.Key("app"))...)
			if exit != fault.ExitOK || opened(t, at, text) != "the value" {
				t.Fatalf("exit %d: %s", exit, said)
			}
			_, said, exit = s.seal(append(envelope, "--key-id", at.Key(kmstest.Denied))...)
			if exit != fault.ExitRefused || !strings.Contains(said, "forbidden") || !strings.Contains(said, "provider "+name) {
				t.Errorf("exit %d: %s", exit, said)
			}
			s.file("credential", "{}")
			_, said, exit = s.seal(append(envelope, "--key-id", at.Key("app"))...)
			if exit != fault.ExitRefused || !strings.Contains(said, "--credential") {
				t.Errorf("exit %d: %s", exit, said)
			}
		})
	}
}

// An envelope for the broker opens with the key that the broker has.
func TestSealInAnEnvelope(t *testing.T) {
	s := newShipper(t)
	kek := strings.Repeat("k", 32)
	text, said, exit := s.seal("--value", filepath.Join(s.dir, "value"), "--key-id", "prod/kek/1", "--key", s.file("kek", kek))
	if exit != fault.ExitOK {
		t.Fatalf("exit %d: %s", exit, said)
	}
	p, err := sealed.UnsafeOpenUnsigned(text)
	if err != nil || p.KeyID != "kbs:///prod/kek/1" || p.Provider != "kbs" {
		t.Fatalf("%+v, %v", p, err)
	}
	wrapped, err := p.Key()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sealed.OpenKey(secret.Copy([]byte(kek)), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := p.Envelopment.Open(key); err != nil || string(v.Reveal()) != "the value" {
		t.Fatal(err)
	}
}

func TestSealRefusesWhatDoesNotFit(t *testing.T) {
	s := newShipper(t)
	value, short := filepath.Join(s.dir, "value"), s.file("short", "k")
	good := s.json("good", map[string]any{"endpoint_url": "https://127.0.0.1:1", "credential": "kbs:///a/b/c"})
	for name, args := range map[string][]string{
		"no name":              {},
		"a name and a value":   {"a/b/c", "--value", value, "--key-id", "a/b/c", "--key", short},
		"no such provider":     {"x", "--provider", "ehsm", "--settings", good},
		"no settings":          {"x", "--provider", "vault"},
		"settings of no guest": {"x", "--provider", "aws", "--settings", good},
		"settings of no sort":  {"x", "--provider", "vault", "--settings", value},
		"settings for none":    {"a/b/c", "--settings", good},
		"a key for a name":     {"a/b/c", "--key", short},
		"no key ID":            {"--value", value, "--key", short},
		"no key":               {"--value", value, "--key-id", "a/b/c"},
		"a short key":          {"--value", value, "--key-id", "a/b/c", "--key", short},
		"no credential":        {"--value", value, "--key-id", "k", "--provider", "vault", "--settings", good},
		"no value":             {"--value", filepath.Join(s.dir, "absent"), "--key-id", "a/b/c", "--key", short},
	} {
		if text, said, exit := s.seal(args...); exit != fault.ExitUsage || text != "" || said == "" {
			t.Errorf("%s: exit %d, %q: %s", name, exit, text, said)
		}
	}
	_, said, exit := s.seal("--value", value, "--key-id", "k", "--provider", "vault", "--settings", good, "--credential", short)
	if exit != fault.ExitUnavailable || !strings.Contains(said, "endpoint_url") {
		t.Errorf("exit %d: %s", exit, said)
	}
}
