package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
)

const good = `
socket = "kbs.sock"
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "kbs"
pin_file = "pin"
master_key = "master"
`

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	path := write(t, "c.toml", good, 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := Config{
		Socket: filepath.Join(dir, "kbs.sock"), Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "kbs", PINFile: filepath.Join(dir, "pin"),
		Sessions: 8, HangSeconds: 20, MasterKey: "master", RSAMechanism: token.OAEP,
	}
	if c != want {
		t.Errorf("%+v", c)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {good + "pin = '1234'\n", "line 7: pin: unknown key"},
		"nothing":     {strings.Replace(good, `"master"`, `""`, 1), "nothing is served"},
		"a padding":   {good + "rsa_mechanism = 'none'\n", "rsa_mechanism"},
		"no patience": {good + "hang_seconds = 0\n", "hang_seconds"},
		"long label":  {good + "lookup_label = '" + strings.Repeat("x", 129) + "'\n", "lookup_label"},
		"no sessions": {good + "sessions = 0\n", "sessions"},
		"long":        {good + strings.Repeat("#", 64<<10), "bytes"},
		"all missing": {"", "pin_file"},
	} {
		if _, err := Load(write(t, "c.toml", c.text, 0o600)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestPIN(t *testing.T) {
	pin, err := Config{PINFile: write(t, "pin", "12 34\r\n", 0o600)}.PIN()
	if err != nil || string(pin.Reveal()) != "12 34" {
		t.Errorf("%v", err)
	}
	for name, path := range map[string]string{
		"others may read": write(t, "pin", "1234", 0o640),
		"empty":           write(t, "pin", "\n", 0o600),
		"long":            write(t, "pin", strings.Repeat("1", 257), 0o600),
		"a folder":        t.TempDir(),
		"none":            filepath.Join(t.TempDir(), "none"),
	} {
		if _, err := (Config{PINFile: path}).PIN(); err == nil || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		c := Config{}
		if parse(raw, &c) == nil {
			_ = c.validate()
		}
	})
}
