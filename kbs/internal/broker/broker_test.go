package broker

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func options(now time.Time) Options {
	return Options{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }, Version: "test"}
}

func testConfig(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default(func(string) string { return "" })
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	cfg.HTTPServer.Sockets, cfg.HTTPServer.AdminSockets, cfg.HTTPServer.MetricsSockets = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	return cfg
}

func open(t *testing.T, cfg config.Config, now time.Time) *Broker {
	t.Helper()
	b, err := Open(t.Context(), cfg, options(now))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// The layout is a contract; private files are private.
func TestStateDirectory(t *testing.T) {
	cfg := testConfig(t)
	b := open(t, cfg, start)
	for name, mode := range map[string]fs.FileMode{
		"kbs.db": 0o600, "tls/cert.pem": 0o644, "tls/key.pem": 0o600, "admin/token": 0o600, "audit.pub": 0o644,
		"keys/master.key": 0o600, "keys/admin.pem": 0o600, "keys/admin.pub": 0o644,
	} {
		info, err := os.Stat(filepath.Join(cfg.StateDir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, dir := range []string{".", "keys", "admin", "tls"} {
		if info, err := os.Stat(filepath.Join(cfg.StateDir, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cfg.StateDir, "*", ".new-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	pub, err := os.ReadFile(filepath.Join(cfg.StateDir, "audit.pub"))
	keys, kerr := b.Deps().AuditLog.Keys(t.Context())
	if err != nil || kerr != nil || strings.TrimSpace(string(pub)) != keys.Current {
		t.Errorf("audit.pub %q: %v, %v", pub, err, kerr)
	}
	token, err := os.ReadFile(AdminTokenPath(cfg.StateDir))
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.Deps().Admins.Authenticate(t.Context(), "Bearer "+strings.TrimSpace(string(token)))
	if err != nil || !id.Has(admin.Owner, admin.AnyTenant) {
		t.Errorf("%+v: %v", id, err)
	}
}

func TestSecondStartChangesNoKey(t *testing.T) {
	cfg := testConfig(t)
	read := func() map[string]string {
		out := map[string]string{}
		for _, name := range []string{"tls/cert.pem", "tls/key.pem", "admin/token", "audit.pub", "keys/master.key", "keys/admin.pem", "keys/admin.pub"} {
			raw, err := os.ReadFile(filepath.Join(cfg.StateDir, name))
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(raw)
		}
		return out
	}
	if err := open(t, cfg, start).Close(); err != nil {
		t.Fatal(err)
	}
	first := read()
	open(t, cfg, start.Add(24*time.Hour))
	for name, text := range read() {
		if text != first[name] {
			t.Errorf("%s was replaced", name)
		}
	}
}

// Once the private admin key is put away the broker still serves, and makes no
// new one.
func TestPrivateAdminKeyMayBeTakenAway(t *testing.T) {
	cfg := testConfig(t)
	if err := open(t, cfg, start).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(adminKeyPath(cfg.StateDir)); err != nil {
		t.Fatal(err)
	}
	open(t, cfg, start)
	if _, err := os.Stat(adminKeyPath(cfg.StateDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new key was made: %v", err)
	}
	if _, err := IssueAdminToken(cfg.StateDir, "x", admin.Owner, time.Hour, start); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a token without a key: %v", err)
	}
}

// A first start that was cut short after the private key begins again with it.
func TestInterruptedFirstStart(t *testing.T) {
	cfg := testConfig(t)
	if err := open(t, cfg, start).Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(adminPublicPath(cfg.StateDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{adminPublicPath(cfg.StateDir), AdminTokenPath(cfg.StateDir)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	open(t, cfg, start)
	after, err := os.ReadFile(adminPublicPath(cfg.StateDir))
	if err != nil || string(after) != string(before) {
		t.Errorf("another key: %v", err)
	}
	if _, err := os.Stat(AdminTokenPath(cfg.StateDir)); err != nil {
		t.Error(err)
	}
}

func TestReadableKeysStopTheStart(t *testing.T) {
	for _, name := range []string{"keys/master.key", "tls/key.pem"} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			if err := open(t, cfg, start).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(cfg.StateDir, name), 0o640); err != nil {
				t.Fatal(err)
			}
			b, err := Open(t.Context(), cfg, options(start))
			if err == nil || !strings.Contains(err.Error(), "owner") {
				t.Errorf("%v, %v", b, err)
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	cfg := testConfig(t)
	parse := func() *x509.Certificate {
		raw, err := os.ReadFile(filepath.Join(cfg.StateDir, "tls", "cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	b := open(t, cfg, start)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	c := parse()
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := c.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if c.IsCA || c.VerifyHostname("kbs.example") == nil {
		t.Error("the certificate can do more than it should")
	}
	if b := open(t, cfg, c.NotAfter.Add(-certRenewal).Add(time.Hour)); b.Close() != nil || parse().Equal(c) {
		t.Error("a certificate that ends soon was kept")
	}
}

func TestOwnCertificateAndNone(t *testing.T) {
	cfg := testConfig(t)
	certPEM, keyPEM, err := selfSigned(start)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg.HTTPServer.Certificate, cfg.HTTPServer.PrivateKey = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	if err := errors.Join(os.WriteFile(cfg.HTTPServer.Certificate, certPEM, 0o644), os.WriteFile(cfg.HTTPServer.PrivateKey, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if b := open(t, cfg, start); b.CertificatePath() != cfg.HTTPServer.Certificate {
		t.Errorf("certificate %s", b.CertificatePath())
	}
	plain := testConfig(t)
	plain.HTTPServer.InsecureHTTP = true
	b := open(t, plain, start)
	if b.CertificatePath() != "" || b.Deps().SecureCookie {
		t.Error("no TLS was asked for")
	}
}

func TestBadVerifierFilesStopTheStart(t *testing.T) {
	for name, change := range map[string]func(*config.SNP){
		"no root":    func(s *config.SNP) { s.InsecureSimulatedRoots = []config.SimulatedRoot{{Name: "lab", Path: "none"}} },
		"no list":    func(s *config.SNP) { s.RevocationLists = map[string]string{"Milan": "none"} },
		"generation": func(s *config.SNP) { s.RevocationLists = map[string]string{"Napoli": "none"} },
	} {
		cfg := testConfig(t)
		change(&cfg.Verifier.SNP)
		if _, err := Open(t.Context(), cfg, options(start)); err == nil || !strings.Contains(err.Error(), "verifier.snp") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	cfg := testConfig(t)
	b := open(t, cfg, time.Now())
	l, err := b.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Serve(ctx, l); err != nil {
		t.Error(err)
	}
	if _, err := l.Guest[0].Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

// One socket that cannot be bound means that none is.
func TestListenAllOrNothing(t *testing.T) {
	cfg := testConfig(t)
	first := open(t, cfg, start)
	l, err := first.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	other := testConfig(t)
	other.HTTPServer.AdminSockets = []string{l.Admin[0].Addr().String()}
	if _, err := open(t, other, start).Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "administrators") {
		t.Errorf("got %v", err)
	}
}
