package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/lock"
)

// writeArchive writes an archive with the packages of guest.lock, in the suites
// book and old, whose list is not valid any more; archive.gpg with the key that
// signs both; and archive.toml and expired.toml, recipes that name them.
func writeArchive(t *testing.T, dir string) {
	t.Helper()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "guest.lock"))
	must(err)
	l, err := lock.Parse(raw)
	must(err)
	var list strings.Builder
	for _, p := range l.Package {
		fmt.Fprintf(&list, "Package: %s\nVersion: %s\nArchitecture: %s\nFilename: pool/%s.deb\nSize: %d\nSHA256: %s\n\n", p.Name, p.Version, p.Architecture, p.Name, p.Size, p.SHA256)
	}
	key, err := openpgp.NewEntity("archive", "", "archive@example.org", nil)
	must(err)
	var public bytes.Buffer
	must(key.Serialize(&public), os.WriteFile(filepath.Join(dir, "archive.gpg"), public.Bytes(), 0o600))
	recipe, err := os.ReadFile(filepath.Join(dir, "recipe.toml"))
	must(err)
	for suite, s := range map[string]struct {
		recipe string
		until  time.Time
	}{"book": {"archive.toml", time.Now().Add(time.Hour)}, "old": {"expired.toml", time.Now().Add(-time.Hour)}} {
		lists := filepath.Join(dir, "archive", "dists", suite)
		const packages = "main/binary-amd64/Packages"
		must(os.MkdirAll(filepath.Join(lists, filepath.Dir(packages)), 0o755), os.WriteFile(filepath.Join(lists, packages), []byte(list.String()), 0o600))
		var release bytes.Buffer
		w, err := clearsign.Encode(&release, key.PrivateKey, nil)
		must(err)
		_, err = io.WriteString(w, fmt.Sprintf("Suite: %s\nValid-Until: %s\nSHA256:\n %x %d %s\n", suite, s.until.UTC().Format("Mon, 2 Jan 2006 15:04:05 MST"),
			sha256.Sum256([]byte(list.String())), list.Len(), packages))
		must(err, w.Close(), os.WriteFile(filepath.Join(lists, "InRelease"), release.Bytes(), 0o600))
		text := fmt.Sprintf("%s\n[[archive]]\nurl = %q\nsuite = %q\ncomponents = [\"main\"]\nkeyring = \"archive.gpg\"\nkeyring_sha256 = \"%x\"\n",
			recipe, "file://"+filepath.Join(dir, "archive"), suite, sha256.Sum256(public.Bytes()))
		must(os.WriteFile(filepath.Join(dir, s.recipe), []byte(text), 0o600))
	}
}
