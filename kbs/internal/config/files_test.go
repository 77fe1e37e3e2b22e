package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The days in which a test's certificate holds.
var (
	begins = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	holds  = begins.Add(time.Hour)
	ends   = begins.Add(48 * time.Hour)
)

// writePair writes a certificate and its key.
func writePair(t *testing.T, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: begins, NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	writeBlock(t, cert, "CERTIFICATE", der)
	writeBlock(t, key, "PRIVATE KEY", pkcs8)
}

func writeBlock(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	writePair(t, at("cert.pem"), at("key.pem"))
	writePair(t, at("other.pem"), at("open.pem"))
	if err := os.Chmod(at("open.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	writeBlock(t, at("broken.pem"), "CERTIFICATE", []byte("not DER"))
	for name, text := range map[string]string{"empty": "", "text": "s3cret\n", "large": strings.Repeat("x", maxFile+1)} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := func(cert, key string) func(*Config) {
		return func(c *Config) { c.HTTPServer.Certificate, c.HTTPServer.PrivateKey = at(cert), at(key) }
	}
	for name, test := range map[string]struct {
		set  func(*Config)
		when time.Time
		want []string // parts of the complaints, one of each
	}{
		"none named": {func(*Config) {}, holds, nil},
		"a pair":     {server("cert.pem", "key.pem"), holds, nil},
		"ended":      {server("cert.pem", "key.pem"), ends.Add(1), []string{"http_server.certificate: " + at("cert.pem") + ": its certificate ended on 2026-01-03T00:00:00Z"}},
		"to come":    {server("cert.pem", "key.pem"), begins.Add(-1), []string{"its certificate begins on 2026-01-01T00:00:00Z"}},
		"another's":  {server("other.pem", "key.pem"), holds, []string{"http_server.certificate: " + at("other.pem") + ": tls: private key does not match"}},
		"a key that others may read": {server("other.pem", "open.pem"), holds,
			[]string{"http_server.private_key: " + at("open.pem") + ": it has mode 0644"}},
		"absent": {server("nowhere.pem", "none.pem"), holds,
			[]string{"http_server.private_key: stat " + at("none.pem") + ": no such file", "http_server.certificate: stat " + at("nowhere.pem") + ": no such file"}},
		"no key beside it": {server("cert.pem", "none.pem"), holds, []string{"http_server.private_key: stat"}},
		"a pipe":           {server("pipe", "key.pem"), holds, []string{at("pipe") + " is no file"}},
		"no certificates":  {server("text", "key.pem"), holds, []string{"it has no certificate in PEM"}},
		"a broken one":     {server("broken.pem", "key.pem"), holds, []string{"its certificate 1: x509"}},
		"a list": {func(c *Config) { c.AttestationToken.TrustedCertsPaths = []string{at("cert.pem"), at("empty"), dir} }, holds,
			[]string{"attestation_token.trusted_certs_paths[1]: " + at("empty") + " is empty", "attestation_token.trusted_certs_paths[2]: " + dir + " is no file"}},
		"a map": {func(c *Config) {
			c.Verifier.SNP.RevocationLists = map[string]string{"Milan": at("text"), "Genoa": at("large"), "Turin": at("none")}
		}, holds, []string{"verifier.snp.revocation_lists.Genoa: " + at("large") + " is larger than 1048576 bytes", "verifier.snp.revocation_lists.Turin: stat"}},
		"in a list of tables": {func(c *Config) {
			c.Plugins = []Plugin{{Name: PluginExternal, Backends: []PluginBackend{{CACertPath: at("cert.pem"), CertPath: at("cert.pem"), KeyPath: at("open.pem")}}}}
		}, holds, []string{"plugins[0].backends[0].cert_path: " + at("cert.pem") + ": tls: private key does not match"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := Default(env(nil))
			test.set(&c)
			var got []string
			if err := c.CheckFiles(test.when); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(test.want) {
				t.Fatalf("%q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

// Each member with the kind of a path says what its file is, or is known to name
// a place; a chain's key is a member beside it.
func TestFilesHaveKinds(t *testing.T) {
	places := []string{"state_dir", "dir_path", "socket", "sinks[].path", "master_key.path", "master_key.former[].path", "collateral.files"}
	keys := map[string]string{}
	walk(reflect.TypeFor[Config](), "", func(path string, f reflect.StructField) {
		is := f.Tag.Get("file")
		keys[path] = is
		if f.Tag.Get("kind") != "path" {
			if is != "" {
				t.Errorf("%s has the tag file, and is no path", path)
			}
			return
		}
		switch kind, _, _ := strings.Cut(is, "="); kind {
		case "certificates", "chain", "private key", "some":
		case "":
			if !slices.ContainsFunc(places, func(p string) bool { return strings.HasSuffix(path, p) }) {
				t.Errorf("%s says neither what its file is, nor is it known as a place", path)
			}
		default:
			t.Errorf("%s: %q is no kind", path, is)
		}
	})
	for _, path := range slices.Sorted(maps.Keys(keys)) {
		if _, key, ok := strings.Cut(keys[path], "="); ok {
			if _, ok := keys[path[:strings.LastIndexByte(path, '.')+1]+key]; !ok {
				t.Error(fmt.Errorf("%s names %s, which is not beside it", path, key))
			}
		}
	}
}
