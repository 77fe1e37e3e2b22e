package archive

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// signer makes a key, and the keyring with it.
func signer(t testing.TB) (*openpgp.Entity, *Keyring) {
	t.Helper()
	key, err := openpgp.NewEntity("archive", "", "archive@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := key.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeyring(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return key, keys
}

func sign(t testing.TB, key *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, &packet.Config{Time: func() time.Time { return now.Add(-time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const packages = `Package: runtime
Version: 1.0-1
Architecture: amd64
Depends: libc (>= 2.0), liba | libz
Filename: pool/runtime_1.0-1_amd64.deb
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000001

Package: liba
Version: 1:0.9~rc1-1
Architecture: amd64
Provides: libz (= 1), liby
Filename: pool/liba.deb
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000002

Package: libc
Version: 1.9-9
Filename: pool/libc_1.9.deb
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000003

Package: libc
Version: 2.1-1
Filename: pool/libc_2.1.deb
Description: two
 lines
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000004

Package: linux-image-cloud
Version: 6.12-1
Depends: linux-image-6.12-cloud (= 6.12-1)
Filename: pool/meta.deb
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000005

Package: linux-image-6.12-cloud
Version: 6.12-1
Depends: kmod
Filename: pool/linux.deb
Size: 10
SHA256: 0000000000000000000000000000000000000000000000000000000000000006
`

func release(text string, until time.Time) string {
	return fmt.Sprintf("Origin: Test\nSuite: stable\nValid-Until: %s\nSHA256:\n %x %d main/binary-amd64/Packages\n",
		until.Format("Mon, 2 Jan 2006 15:04:05 MST"), sha256.Sum256([]byte(text)), len(text))
}

func TestRelease(t *testing.T) {
	key, keys := signer(t)
	good := sign(t, key, release(packages, now.Add(time.Hour)))
	r, err := ParseRelease(good, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	content, err := r.Check("main/binary-amd64/Packages", strings.NewReader(packages))
	if err != nil {
		t.Fatal(err)
	}
	if err := NewIndex().Read(content, "https://archive.example.org/debian"); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"another byte": strings.Replace(packages, "1.0-1", "1.0-2", 1), "cut": packages[:len(packages)-1], "longer": packages + "\n",
	} {
		content, err := r.Check("main/binary-amd64/Packages", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := NewIndex().Read(content, ""); !errors.Is(err, ErrHash) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Check("main/binary-arm64/Packages", nil); !errors.Is(err, ErrIndex) {
		t.Errorf("a file that is not listed: %v", err)
	}

	_, strangers := signer(t)
	if _, err := ParseRelease(good, strangers, now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("another's keyring: %v", err)
	}
	if _, err := ParseRelease(bytes.Replace(good, []byte("Suite: stable"), []byte("Suite: stales"), 1), keys, now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("changed text: %v", err)
	}
	if _, err := ParseRelease([]byte(release(packages, now)), keys, now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no signature: %v", err)
	}
	if _, err := ParseRelease(append(bytes.Clone(good), "Suite: more\n"...), keys, now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("text behind the signature: %v", err)
	}
	if _, err := ParseRelease(sign(t, key, release(packages, now.Add(-time.Hour))), keys, now); err == nil || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("an old list: %v", err)
	}
}

func index(t testing.TB) *Index {
	t.Helper()
	x := NewIndex()
	if err := x.Read(strings.NewReader(packages), "https://archive.example.org/debian/"); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestChoose(t *testing.T) {
	x := index(t)
	all, err := x.Closure([]string{"runtime"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name+"="+p.Version)
	}
	if got := strings.Join(names, " "); got != "liba=1:0.9~rc1-1 libc=2.1-1 runtime=1.0-1" {
		t.Error(got)
	}
	if p := x.Newest("libc"); p.URL != "https://archive.example.org/debian/pool/libc_2.1.deb" {
		t.Error(p.URL)
	}
	k, err := x.Kernel([]string{"linux-image-7", "linux-image-cloud"})
	if err != nil || k.Name != "linux-image-6.12-cloud" {
		t.Errorf("%v, %v", k, err)
	}
	if _, err := x.Kernel([]string{"linux-image-7"}); err == nil {
		t.Error("a kernel that is not there was found")
	}
	if _, err := x.Closure([]string{"linux-image-6.12-cloud"}); err == nil || !strings.Contains(err.Error(), "nothing for kmod") {
		t.Errorf("a dependency that nothing meets: %v", err)
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0", "1.0", 0}, {"1.0-1", "1.0-2", -1}, {"1.10", "1.9", 1}, {"1:0", "9", 1}, {"1.0~rc1", "1.0", -1}, {"1.0~~", "1.0~", -1},
		{"1.0+b1", "1.0", 1}, {"1.0a", "1.0+", -1}, {"6.12.117-1~deb12u1", "6.12.117-1", -1}, {"1.0", "1.0-0", 0}, {"01.0", "1.0", 0}, {"1-1-2", "1-1", 1},
	} {
		if got := Compare(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := Compare(c.b, c.a); got != -c.want {
			t.Errorf("%s and %s: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"no size":            "Package: a\nVersion: 1\nFilename: a\nSHA256: " + strings.Repeat("0", 64) + "\n",
		"no hash":            "Package: a\nVersion: 1\nFilename: a\nSize: 1\nSHA256: 00\n",
		"out of the archive": "Package: a\nVersion: 1\nFilename: ../a\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\n",
		"twice":              "Package: a\nPackage: b\n",
		"no field":           "Package a\n",
		"continues nothing":  " folded\n",
	} {
		if err := NewIndex().Read(strings.NewReader(text), ""); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add(packages, "runtime")
	f.Add("Package: a\n b\n", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		x := NewIndex()
		if x.Read(strings.NewReader(text), "file:///archive") != nil {
			return
		}
		all, err := x.Closure([]string{name})
		if err == nil && len(all) == 0 {
			t.Error("nothing chosen, and no error")
		}
	})
}

func FuzzRelease(f *testing.F) {
	key, _ := signer(f)
	f.Add(sign(f, key, release(packages, now.Add(time.Hour))))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----"))
	_, strangers := signer(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := ParseRelease(raw, strangers, now); !errors.Is(err, ErrUnsigned) && !errors.Is(err, ErrIndex) {
			t.Errorf("%v", err)
		}
	})
}

func FuzzCompare(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0+b2")
	f.Fuzz(func(t *testing.T, a, b string) {
		if Compare(a, b) != -Compare(b, a) || Compare(a, a) != 0 {
			t.Errorf("%q and %q have no order", a, b)
		}
	})
}
