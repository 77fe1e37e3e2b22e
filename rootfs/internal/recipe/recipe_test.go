package recipe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/recipe"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/rootfstest"
)

// The recipes that are shipped can be read.
func TestShipped(t *testing.T) {
	files, err := filepath.Glob("../../recipes/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal("no recipes", err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recipe.Parse(raw); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

const agent = `path = "/usr/bin/guest-agent"`

// archive is what agent is replaced with for a recipe that names an archive.
func archive(url, suite, component, digest string) string {
	return fmt.Sprintf("%s\n[[archive]]\nurl = %q\nsuite = %q\ncomponents = [%q]\nkeyring = \"a.gpg\"\nkeyring_sha256 = %q\n", agent, url, suite, component, digest)
}

func TestArchive(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	r, err := recipe.Parse([]byte(strings.Replace(rootfstest.Recipe, agent, archive("https://a.example", "book", "main", digest), 1)))
	if err != nil || len(r.Archive) != 1 || r.Archive[0].SHA256 != digest || r.Archive[0].Expired {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMistakes(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	for _, c := range []struct{ old, with, want string }{
		{`name = "guest"`, `name = "Guest"`, "small letters"},
		{`name = "guest"`, `nam = "guest"`, "line 1: nam means nothing"},
		{`name = "guest"`, `name = "guest`, "line 1, column"},
		{`"linux-image-test"`, `"../x"`, "cannot be the name of a package"},
		{`"-absent"`, `"a/b"`, "\"a/b\" cannot be the name of a module"},
		{`later = ["dm_verity"]`, `later = ["a b"]`, "\"a b\" cannot be the name of a module"},
		{`"console=ttyS0 quiet"`, `"a\nb"`, "one line of printable ASCII"},
		{`"console=ttyS0 quiet"`, "\"quiet\"\ninitramfs = \"xz\"", "want lz4 or zstd"},
		{`path = "/usr/bin/guest-agent"`, `path = "usr/bin"`, "absolute path of PID 1"},
		{`files = ["/usr/bin/runtime"]`, `files = ["/usr/bin/r*"]`, "named one by one"},
		{`files = ["/usr/bin/runtime"]`, `files = ["/usr/../etc"]`, "no clean absolute path"},
		{`join = "/etc`, `join = "etc`, "want an absolute path"},
		{`"snp", "tpm"`, `"sgx"`, "want snp, tdx or tpm"},
		{agent, archive("ftp://a.example", "book", "main", digest), "ftp://a.example: want a url by http, https or file"},
		{agent, archive("https://user:word@a.example", "book", "main", digest[2:]), "https://user:xxxxx@a.example: want a url by http, https or file, without a password"},
		{agent, archive("https://a.example", "../book", "main", digest), "cannot be the name of a suite"},
		{agent, archive("https://a.example", "book/..", "main", digest), "cannot be the name of a suite"},
		{agent, archive("https://a.example", "book", "ma in", digest), "or of a component"},
		{agent, archive("https://a.example", "book", "main", digest[2:]), "nothing else says whose packages these are"},
	} {
		text := strings.Replace(rootfstest.Recipe, c.old, c.with, 1)
		if text == rootfstest.Recipe {
			t.Fatalf("%q is not in the recipe", c.old)
		}
		if _, err := recipe.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), ":word@") {
			t.Errorf("%s: %v", c.with, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name = 'a'\n[kernel]\npackage = ['linux']\n[agent]\npath = '/a'\n"))
	f.Add([]byte("name = 'a'\n[kernel]\nfile = 'bzImage'\ninitramfs = 'zstd'\n[agent]\npath = '/a'\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := recipe.Parse(raw)
		if err == nil && (r.Name == "" || len(r.Kernel.Package) == 0 && r.Kernel.File == "") {
			t.Errorf("accepted %q", raw)
		}
	})
}
