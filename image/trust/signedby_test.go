package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func pgpKey(t testing.TB, c *packet.Config) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("signer", "", "signer@example.com", c)
	must(t, err)
	return e
}

func pgpPublic(t testing.TB, entities ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entities {
		must(t, e.Serialize(&b))
	}
	return b.Bytes()
}

func pgpSign(t testing.TB, e *openpgp.Entity, payload []byte, c *packet.Config) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, e, nil, c)
	must(t, err)
	_, err = w.Write(payload)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// atomic is the payload that skopeo and podman sign.
func atomic(d digest.Digest, name string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":{"creator":"t","timestamp":1}}`,
		name, d, payloadTypeAtomic)
}

// fileLookaside lays the signatures out under a directory.
func fileLookaside(t testing.TB, d digest.Digest, sigs ...[]byte) *Lookaside {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "a", "app@sha256="+d.Encoded())
	must(t, os.MkdirAll(dir, 0o755))
	for i, s := range sigs {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", i+1)), s, 0o600))
	}
	l, err := ParseLookaside(fmt.Appendf(nil, "docker:\n  ghcr.io/a:\n    lookaside: file://%s\n", base))
	must(t, err)
	return l
}

func given(l *Lookaside) func(context.Context) (*Lookaside, error) {
	return func(context.Context) (*Lookaside, error) { return l, nil }
}

func gpgPolicy(t testing.TB, more string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(withDefault(`{"type":"signedBy","keyType":"GPGKeys","keyPath":"k"` + more + `}`)))
	must(t, err)
	return p
}

func TestSignedBy(t *testing.T) {
	s := subject(t)
	good, other, third := pgpKey(t, nil), pgpKey(t, nil), pgpKey(t, nil)
	payload := atomic(s.Manifest, subjectName)
	past := func() time.Time { return time.Now().Add(-100 * 24 * time.Hour) }
	short := pgpKey(t, &packet.Config{Time: past, KeyLifetimeSecs: 3600})
	old := pgpKey(t, &packet.Config{Time: past})
	tests := []struct {
		name, policy string
		keys         []*openpgp.Entity
		sigs         [][]byte
		reason       string // empty: accepted
	}{
		{"a good one", "", nil, [][]byte{pgpSign(t, good, payload, nil)}, ""},
		{"compressed", "", nil, [][]byte{compress(t, pgpSign(t, good, payload, nil))}, ""},
		{"a good one after others", "", nil, [][]byte{[]byte("x"), pgpSign(t, other, payload, nil), pgpSign(t, good, payload, nil)}, ""},
		{"one of a keyring", "", []*openpgp.Entity{good, other}, [][]byte{pgpSign(t, other, payload, nil)}, ""},
		{"two of a keyring", `,"threshold":2`, []*openpgp.Entity{good, other, third}, [][]byte{pgpSign(t, other, payload, nil), pgpSign(t, good, payload, nil)}, ""},
		{"the same twice", `,"threshold":2`, []*openpgp.Entity{good, other}, [][]byte{pgpSign(t, good, payload, nil), pgpSign(t, good, payload, nil)}, "1 of the 2"},
		{"none", "", nil, nil, "no signature"},
		{"another key", "", nil, [][]byte{pgpSign(t, other, payload, nil)}, "none of the keys"},
		{"another image", "", nil, [][]byte{pgpSign(t, good, atomic(digest.FromString("x"), subjectName), nil)}, "another image"},
		{"another tag", "", nil, [][]byte{pgpSign(t, good, atomic(s.Manifest, "ghcr.io/a/app:v2"), nil)}, "the name"},
		{"another tag, where the repository suffices", `,"signedIdentity":{"type":"matchRepository"}`, nil, [][]byte{pgpSign(t, good, atomic(s.Manifest, "ghcr.io/a/app:v2"), nil)}, ""},
		{"cosign's payload", "", nil, [][]byte{pgpSign(t, good, payloadFor(s.Manifest, subjectName), nil)}, "bad payload"},
		{"an expired key", "", []*openpgp.Entity{short}, [][]byte{pgpSign(t, short, payload, &packet.Config{Time: past})}, "expired"},
		{"a signature of tomorrow", "", nil, [][]byte{pgpSign(t, good, payload, &packet.Config{Time: func() time.Time { return time.Now().Add(24 * time.Hour) }})}, "expired"},
		{"an expired signature", "", []*openpgp.Entity{old}, [][]byte{pgpSign(t, old, payload, &packet.Config{SigLifetimeSecs: 1, Time: past})}, "expired"},
		{"text", "", nil, [][]byte{payload}, "none of the keys"},
		{"something after it", "", nil, [][]byte{append(pgpSign(t, good, payload, nil), pgpSign(t, other, payload, nil)...)}, "after the signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.keys == nil {
				tt.keys = []*openpgp.Entity{good}
			}
			ev := Evidence{Signatures: newShelf(), Lookaside: given(fileLookaside(t, s.Manifest, tt.sigs...)), Keys: func(context.Context, string) ([]byte, error) {
				return pgpPublic(t, tt.keys...), nil
			}}
			v, err := gpgPolicy(t, tt.policy).Evaluate(t.Context(), s, ev)
			if tt.reason == "" {
				if err != nil || !v.Accepted || v.Waived || v.Signatures[0].Form != FormOpenPGP || v.Signatures[0].Origin != OriginLookaside {
					t.Fatalf("got %+v, %v", v, errors.Unwrap(err))
				}
				return
			}
			if rej, ok := errors.AsType[*Rejection](err); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned || !ok || !strings.Contains(rej.Error(), tt.reason) {
				t.Fatalf("got %+v, %v, want %q", v, errors.Unwrap(err), tt.reason)
			}
		})
	}
	ev := Evidence{Signatures: newShelf(), Keys: func(context.Context, string) ([]byte, error) { return pgpPublic(t, good), nil }}
	if v, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev); v.Accepted || fault.CodeOf(err) != fault.ImageUnsigned {
		t.Errorf("no lookaside: %+v, %v", v, err)
	}
	ev.Lookaside = func(context.Context) (*Lookaside, error) { return nil, fault.Newf(fault.PolicyDenied, "no") }
	if v, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev); v.Accepted || fault.CodeOf(err) != fault.PolicyDenied {
		t.Errorf("a lookaside that cannot be had: %+v, %v", v, err)
	}
}

func compress(t testing.TB, message []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packet.SerializeCompressed(nopCloser{&b}, packet.CompressionZIP, nil)
	must(t, err)
	_, err = w.Write(message)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// No changed byte of a signed message makes it say something else.
func TestMutatedMessages(t *testing.T) {
	s := subject(t)
	key := pgpKey(t, nil)
	payload := atomic(s.Manifest, subjectName)
	raw := pgpSign(t, key, payload, nil)
	ring := keyring{entities: openpgp.EntityList{key}, now: time.Now}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if got, _, err := ring.open(changed); err == nil && !bytes.Equal(got, payload) {
			t.Fatalf("byte %d: %s", i, got)
		}
	}
	short := pgpKey(t, &packet.Config{RSABits: 1024})
	ring.entities = openpgp.EntityList{short}
	if _, _, err := ring.open(pgpSign(t, short, payload, nil)); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("an RSA key of 1024 bits: %v", err)
	}
}

func TestLookasideOverHTTP(t *testing.T) {
	s := subject(t)
	key := pgpKey(t, nil)
	sig := pgpSign(t, key, atomic(s.Manifest, subjectName), nil)
	status := http.StatusOK
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case status != http.StatusOK:
			w.Header().Set("Location", "https://example.com/")
			w.WriteHeader(status)
		case r.URL.Path == "/sigs/a/app@sha256="+s.Manifest.Encoded()+"/signature-1":
			_, _ = w.Write(sig)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	l, err := ParseLookaside(fmt.Appendf(nil, "default-docker:\n  sigstore: %s/sigs/\n", srv.URL))
	must(t, err)
	ev := Evidence{Signatures: newShelf(), Lookaside: given(l), Keys: func(context.Context, string) ([]byte, error) { return pgpPublic(t, key), nil }}
	if _, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev); fault.CodeOf(err) != fault.ImageUnavailable {
		t.Errorf("without a client: %v", err)
	}
	l.Client = srv.Client()
	l.Client.CheckRedirect = NewLookasideClient(nil).CheckRedirect
	if v, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev); err != nil || len(v.Signers) != 1 {
		t.Errorf("%+v, %v", v, errors.Unwrap(err))
	}
	for _, status = range []int{http.StatusInternalServerError, http.StatusFound} {
		if _, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev); fault.CodeOf(err) != fault.ImageUnavailable {
			t.Errorf("status %d: %v", status, err)
		}
	}
	l, err = ParseLookaside([]byte("default-docker: {lookaside: 'http://127.0.0.1:1/'}"))
	must(t, err)
	l.Client = srv.Client()
	if _, err := l.fetch(t.Context(), s.Reference, s.Manifest); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("plain HTTP: %v", err)
	}
}

// What lies where a signature should is not waited for.
func TestLookasideOfAPipe(t *testing.T) {
	s := subject(t)
	l := fileLookaside(t, s.Manifest)
	base, err := url.Parse(l.place(s.Reference))
	must(t, err)
	must(t, unix.Mkfifo(filepath.Join(base.Path, "a", "app@sha256="+s.Manifest.Encoded(), "signature-1"), 0o600))
	if _, err := l.fetch(t.Context(), s.Reference, s.Manifest); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("got %v", err)
	}
}

func TestParseLookaside(t *testing.T) {
	l, err := ParseLookaside([]byte("default-docker:\n  lookaside: file:///d\ndocker:\n  ghcr.io/a:\n    lookaside: file:///a\n  ghcr.io/a/app:\n    use-sigstore-attachments: true\n"), nil)
	must(t, err)
	ref := subject(t).Reference
	if got := l.place(ref); got != "file:///a" {
		t.Errorf("the place is %q", got)
	}
	ref.Path = "b"
	if got := l.place(ref); got != "file:///d" {
		t.Errorf("the default place is %q", got)
	}
	for name, doc := range map[string]string{
		"unknown member": "default-docker: {lookasides: file:///a}", "relative": "default-docker: {lookaside: file://a/b}",
		"scheme": "default-docker: {lookaside: 'ftp://a/b'}", "query": "default-docker: {lookaside: 'https://a/b?x'}",
		"scope": "docker: {'ghcr.io/': {lookaside: file:///a}}", "no YAML": "{", "list": "[1]",
		"twice": "docker: {ghcr.io: {lookaside: file:///a}, ghcr.io: {lookaside: file:///b}}",
	} {
		if _, err := ParseLookaside([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	one := []byte("docker: {ghcr.io: {lookaside: file:///a}}")
	if _, err := ParseLookaside(one, one); err == nil {
		t.Error("a scope in two files")
	}
	if _, err := l.read(t.Context(), mustURL(t, "file:///nowhere/x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestDebiansGPG signs with gpg and lets gpg read what the library signed.
func TestDebiansGPG(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("gpg is not installed")
	}
	home, err := os.MkdirTemp("", "gpg") // a socket's path must be short
	must(t, err)
	gpg := func(stdin []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v: %s", args, err, &stderr)
		}
		return out
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	s := subject(t)
	payload := atomic(s.Manifest, subjectName)
	for algorithm, usage := range map[string]string{"ed25519": "cert", "rsa2048": "cert", "nistp256": "cert,sign"} {
		user := algorithm + "@example.com"
		gpg(nil, "--quick-gen-key", user, algorithm, usage, "never")
		fields := strings.Split(string(gpg(nil, "--with-colons", "--fingerprint", user)), "fpr:::::::::")
		fingerprint, _, _ := strings.Cut(fields[1], ":")
		if usage == "cert" { // a subkey signs
			gpg(nil, "--quick-add-key", fingerprint, algorithm, "sign", "1y")
		}
		for _, more := range [][]string{{"--export"}, {"--export", "--armor"}} {
			public := gpg(nil, append(more, user)...)
			ev := Evidence{Signatures: newShelf(), Lookaside: given(fileLookaside(t, s.Manifest, gpg(payload, "--sign", "-u", user))),
				Keys: func(context.Context, string) ([]byte, error) { return public, nil }}
			v, err := gpgPolicy(t, "").Evaluate(t.Context(), s, ev)
			if err != nil || v.Signers[0] != "openpgp:"+strings.ToLower(fingerprint) {
				t.Errorf("%s %v: %+v, %v", algorithm, more, v, errors.Unwrap(err))
			}
		}
	}
	key := pgpKey(t, nil)
	gpg(pgpPublic(t, key), "--import")
	if got := gpg(pgpSign(t, key, payload, nil), "--decrypt"); !bytes.Equal(got, payload) {
		t.Errorf("gpg read %q", got)
	}
}

func FuzzOpenMessage(f *testing.F) {
	key := pgpKey(f, nil)
	signed := pgpSign(f, key, []byte("{}"), nil)
	f.Add(signed)
	f.Add(compress(f, signed))
	ring := keyring{entities: openpgp.EntityList{key}, now: time.Now}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if payload, _, err := ring.open(raw); err == nil && string(payload) != "{}" {
			t.Fatalf("verified %q", payload)
		}
	})
}

func FuzzParseLookaside(f *testing.F) {
	f.Add([]byte("default-docker:\n  lookaside: file:///d\ndocker:\n  ghcr.io/a:\n    sigstore: https://a/b\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := ParseLookaside(raw)
		if err == nil && l.fallback != "" && checkLookaside(l.fallback) != nil {
			t.Fatalf("accepted %q", l.fallback)
		}
	})
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}
