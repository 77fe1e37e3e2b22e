package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
)

const listDir = "main/binary-amd64/Packages"

// served is an archive with one suite, as its files.
func served(t *testing.T, key *openpgp.Entity, until time.Time) map[string][]byte {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte(packages))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("Origin: Test\nSuite: stable\nCodename: book\nValid-Until: %s\nSHA256:\n %x %d %s.gz\n",
		until.Format("Mon, 2 Jan 2006 15:04:05 MST"), sha256.Sum256(packed.Bytes()), packed.Len(), listDir)
	return map[string][]byte{"/debian/dists/book/InRelease": sign(t, key, text), "/debian/dists/book/" + listDir + ".gz": packed.Bytes()}
}

func serve(t *testing.T, files map[string][]byte) (Suites, string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(s.Close)
	return Suites{Client: s.Client(), Now: func() time.Time { return now }}, s.URL + "/debian/"
}

func TestSuites(t *testing.T) {
	key, keys := signer(t)
	files := served(t, key, now.Add(time.Hour))
	s, base := serve(t, files)
	suite := Suite{URL: base, Name: "book", Components: []string{"main"}, Keys: keys}
	x, err := s.Index(t.Context(), "amd64", []Suite{suite})
	if err != nil {
		t.Fatal(err)
	}
	if p := x.Newest("runtime"); p == nil || p.URL != base+"pool/runtime_1.0-1_amd64.deb" {
		t.Errorf("%+v", p)
	}
	list := "/debian/dists/book/" + listDir + ".gz"
	_, strangers := signer(t)
	for name, c := range map[string]struct {
		change func(Suite, map[string][]byte) Suite
		want   error
	}{
		"another's keyring": {func(s Suite, _ map[string][]byte) Suite { s.Keys = strangers; return s }, ErrUnsigned},
		"another list":      {func(s Suite, f map[string][]byte) Suite { f[list] = append(bytes.Clone(f[list]), 0); return s }, ErrHash},
		"a cut list":        {func(s Suite, f map[string][]byte) Suite { f[list] = f[list][:40]; return s }, ErrHash},
		"no such component": {func(s Suite, _ map[string][]byte) Suite { s.Components = []string{"contrib"}; return s }, ErrIndex},
		"an old list":       {func(s Suite, f map[string][]byte) Suite { replace(f, served(t, key, now.Add(-time.Hour))); return s }, ErrIndex},
		"another suite's": {func(s Suite, f map[string][]byte) Suite {
			f["/debian/dists/sid/InRelease"] = f["/debian/dists/book/InRelease"]
			s.Name = "sid"
			return s
		}, ErrIndex},
		"an unsigned release": {func(s Suite, f map[string][]byte) Suite {
			f["/debian/dists/book/InRelease"] = []byte("Suite: book\n")
			return s
		}, ErrUnsigned},
	} {
		changed := map[string][]byte{}
		replace(changed, files)
		server, base := serve(t, changed)
		suite := suite
		suite.URL = base
		if _, err := server.Index(t.Context(), "amd64", []Suite{c.change(suite, changed)}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Index(t.Context(), "amd64", []Suite{suite, {URL: base, Name: "gone", Keys: keys}}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a suite that is not there is left out: %v", err)
	}
	// A snapshot is older than it says it may be, which must be allowed by name.
	old, base := serve(t, served(t, key, now.Add(-time.Hour)))
	suite.URL, suite.Expired = base, true
	if _, err := old.Index(t.Context(), "amd64", []Suite{suite}); err != nil {
		t.Errorf("a snapshot: %v", err)
	}
}

func replace(files, with map[string][]byte) {
	for name, content := range with {
		files[name] = content
	}
}
