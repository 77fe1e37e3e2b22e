package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPostgresDSN(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const table = "[storage_backend]\nstorage_type = 'postgres'\n[storage_backend.backends.postgres]\n"
	for name, c := range map[string]struct{ text, url, want, err string }{
		"the field's table": {table + "host = 'db'\ndb = 'kbs'\nusername = 'u'\npassword = 'a/b@c'\n", "", "postgres://u:a%2Fb%40c@db:5432/kbs", ""},
		"a password file":   {table + "host = 'db'\nport = 1\ndb = 'kbs'\nusername = 'u'\npassword_file = '" + file("pw", "s3cret\n") + "'\n", "", "postgres://u:s3cret@db:1/kbs", ""},
		"a socket":          {table + "host = '/run/pg'\ndb = 'kbs'\nusername = 'u'\n", "", "postgres://u@/kbs?host=%2Frun%2Fpg&port=5432", ""},
		"certificates": {table + "host = '::1'\ndb = 'kbs'\nusername = 'u'\nsslmode = 'verify-full'\nsslrootcert = '/ca'\n", "",
			"postgres://u@[::1]:5432/kbs?sslmode=verify-full&sslrootcert=%2Fca", ""},
		"the environment": {table + "host = 'db'\ndb = 'kbs'\nusername = 'u'\n", "postgres://elsewhere/x", "postgres://elsewhere/x", ""},
		"a url file":      {table + "url_file = '" + file("url", "postgres://f/x") + "'\n", "", "postgres://f/x", ""},
		"two passwords":   {table + "host = 'db'\ndb = 'kbs'\nusername = 'u'\npassword = 'x'\npassword_file = 'y'\n", "", "", "exclude each other"},
		"no host":         {table + "db = 'kbs'\nusername = 'u'\n", "", "", "host: must not be empty"},
		"half a pair":     {table + "url = 'postgres://x/y'\nsslcert = 'x'\n", "", "", "given together"},
		"two lines":       {table + "url_file = '" + file("two", "a\nb\n") + "'\n", "", "", "must hold one line"},
		"an empty file":   {table + "url_file = '" + file("empty", "\n") + "'\n", "", "", "must hold one line"},
		"a mode":          {table + "url = 'postgres://x/y'\nsslmode = 'maybe'\n", "", "", "sslmode"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Load(file("kbs.toml", c.text), env(map[string]string{"POSTGRES_URL": c.url}))
			got := ""
			if err == nil {
				if dsn, e := cfg.StorageBackend.Backends.Postgres.DSN(); e == nil {
					got = string(dsn.Reveal())
				} else {
					err = e
				}
			}
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}

// A password in the file is used, and shown nowhere.
func TestPasswordsAreNotDumped(t *testing.T) {
	c := Default(env(nil))
	text := "[storage_backend]\nstorage_type = 'postgres'\n[storage_backend.backends.postgres]\nhost = 'db'\ndb = 'kbs'\nusername = 'u'\n" +
		"password = 'geheim'\nurl = 'postgres://u:geheim@db/kbs'\ninsecure_tls = true\n"
	if err := Parse([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	raw, err := c.Dump()
	if err != nil || !strings.Contains(string(raw), "password is set: true") {
		t.Errorf("%v\n%s", err, raw)
	}
	p := c.StorageBackend.Backends.Postgres
	if all := string(raw) + fmt.Sprintf("%v %+v %#v %v %q %x", c, c, c, p, p.Password, p.URL); strings.Contains(all, "geheim") || strings.Contains(all, "67656865696d") {
		t.Errorf("the password shows: %s", all)
	}
	if weak := c.Insecure(); len(weak) != 1 || !strings.HasSuffix(weak[0], "insecure_tls") {
		t.Errorf("insecure settings %q", weak)
	}
}

func TestStoragePath(t *testing.T) {
	for text, want := range map[string]string{
		"": "/s/kbs.db",
		"[storage_backend]\nstorage_type = 'LocalFs'\n[storage_backend.backends.local_fs]\ndir_path = '/d'\n": "/d/kbs.db",
	} {
		c := Default(env(nil))
		if err := Parse([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.StorageBackend.Path("/s"); got != want || c.StorageBackend.Kind() != StorageSQLite {
			t.Errorf("%s gives %s in %s", text, c.StorageBackend.Kind(), got)
		}
	}
}
