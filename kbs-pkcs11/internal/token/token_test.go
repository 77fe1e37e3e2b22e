package token_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	module = "/usr/lib/softhsm/libsofthsm2.so"
	pin    = "not-so-secret"
)

// TestMain makes one token for all tests: the library reads where it is once.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if _, err := os.Stat(module); err != nil {
		fmt.Fprintln(os.Stderr, "SKIP: no SoftHSM (Debian: softhsm2)")
		if os.Getenv("CI") == "true" {
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "token-*")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nlog.level = ERROR\n"), 0o600); err != nil {
		return err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return err
	}
	for _, label := range []string{"kbs", "twin", "twin"} {
		out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "so-"+pin).CombinedOutput()
		if err != nil {
			return fmt.Errorf("softhsm2-util: %w: %s", err, out)
		}
	}
	return nil
}

func config() token.Config {
	return token.Config{
		Module: module, Token: token.Which{Label: "kbs"}, Sessions: 3, Now: time.Now,
		PIN:     func() (secret.Bytes, error) { return secret.New([]byte(pin)), nil },
		Longest: time.Minute, Hung: func() { panic("the token hangs") },
	}
}

func open(t *testing.T) *token.Token {
	t.Helper()
	tok, err := token.Open(config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Close() })
	return tok
}

func TestSeal(t *testing.T) {
	tok, ctx := open(t), t.Context()
	first, err := tok.Make(ctx, "seal")
	if err != nil {
		t.Fatal(err)
	}
	second, err := tok.Make(ctx, "seal")
	if err != nil {
		t.Fatal(err)
	}
	names, err := tok.Keys(ctx, "seal")
	if err != nil || len(names) != 2 || !contains(names, first) || !contains(names, second) {
		t.Fatalf("%q, %v", names, err)
	}
	key := secret.Random(32)
	wrapped, err := tok.Wrap(ctx, "seal", first, key, []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := tok.Unwrap(ctx, "seal", first, wrapped, []byte("here")); err != nil || !back.Equal(key) {
		t.Fatalf("unwrap: %v", err)
	}
	bare, err := tok.Wrap(ctx, "seal", first, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := tok.Unwrap(ctx, "seal", first, bare, nil); err != nil || !back.Equal(key) {
		t.Fatalf("unwrap what is bound to nothing: %v", err)
	}
	long := make([]byte, 4097)
	for name, c := range map[string]struct {
		label, key     string
		wrapped, bound []byte
		want           error
	}{
		"another place": {"seal", first, wrapped, []byte("there"), token.ErrOpen},
		"no place":      {"seal", first, wrapped, nil, token.ErrOpen},
		"another key":   {"seal", second, wrapped, []byte("here"), token.ErrOpen},
		"unknown key":   {"seal", "00ff", wrapped, []byte("here"), token.ErrUnknown},
		"another label": {"other", first, wrapped, []byte("here"), token.ErrUnknown},
		"not a name":    {"seal", "../x", wrapped, []byte("here"), token.ErrUnknown},
		"nothing":       {"seal", first, nil, []byte("here"), token.ErrOpen},
		"cut":           {"seal", first, wrapped[:28], []byte("here"), token.ErrOpen},
		"too long":      {"seal", first, long, []byte("here"), token.ErrOpen},
		"bound to much": {"seal", first, wrapped, long, token.ErrSize},
	} {
		if _, err := tok.Unwrap(ctx, c.label, c.key, c.wrapped, c.bound); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := tok.Unwrap(ctx, "seal", first, bad, []byte("here")); !errors.Is(err, token.ErrOpen) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
	for _, n := range []int{0, 513} {
		if _, err := tok.Wrap(ctx, "seal", first, secret.Random(n), nil); !errors.Is(err, token.ErrSize) {
			t.Errorf("wrap %d bytes: %v", n, err)
		}
	}
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// Many at once share a few sessions.
func TestMany(t *testing.T) {
	tok := open(t)
	name, err := tok.Make(t.Context(), "many")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			bound := []byte{byte(i)}
			key := secret.Random(32)
			wrapped, err := tok.Wrap(t.Context(), "many", name, key, bound)
			if err != nil {
				t.Error(err)
				return
			}
			if back, err := tok.Unwrap(t.Context(), "many", name, wrapped, bound); err != nil || !back.Equal(key) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestTokensThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*token.Config)
		want   error
	}{
		"another PIN": {func(c *token.Config) {
			c.PIN = func() (secret.Bytes, error) { return secret.New([]byte("wrong")), nil }
		}, token.ErrPIN},
		"no token":   {func(c *token.Config) { c.Token.Label = "none" }, token.ErrAway},
		"two tokens": {func(c *token.Config) { c.Token.Label = "twin" }, token.ErrAway},
	} {
		cfg := config()
		c.change(&cfg)
		if tok, err := token.Open(cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, tok, err)
		}
	}
	cfg := config()
	cfg.Module = "/etc/hostname"
	if _, err := token.Open(cfg); err == nil {
		t.Error("a text file was taken for a module")
	}
}

func TestCallerThatGaveUp(t *testing.T) {
	tok := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // a free turn may be taken all the same
		if _, err := tok.Keys(ctx, "none"); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

// Sessions that became void are made anew, with the login.
func TestSessionsThatBecameVoid(t *testing.T) {
	tok := open(t)
	name, err := tok.Make(t.Context(), "void")
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Random(32)
	wrapped, err := tok.Wrap(t.Context(), "void", name, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := token.Break(tok); err != nil {
			t.Fatal(err)
		}
		if back, err := tok.Unwrap(t.Context(), "void", name, wrapped, nil); err != nil || !back.Equal(key) {
			t.Fatalf("unwrap: %v", err)
		}
	}
}

// A PIN that was refused is not tried again: tokens lock themselves.
func TestPINIsTriedOnce(t *testing.T) {
	pins := []string{pin, "wrong", pin}
	cfg := config()
	asked := 0
	cfg.PIN = func() (secret.Bytes, error) {
		asked++
		return secret.New([]byte(pins[asked-1])), nil
	}
	tok, err := token.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tok.Close() }()
	if err := token.Break(tok); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := tok.Keys(t.Context(), "none"); !errors.Is(err, token.ErrPIN) {
			t.Errorf("after a wrong PIN: %v", err)
		}
	}
	if asked != 2 {
		t.Errorf("the PIN was asked for %d times, want 2", asked)
	}
}
