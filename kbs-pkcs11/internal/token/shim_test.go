package token_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs-pkcs11/internal/token"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// shim builds the module that behaves as other makers' do (testdata/shim.c).
func shim(t *testing.T) token.Config {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "shim.so")
	args := []string{"-shared", "-fPIC", "-Wall", "-Werror", "-I", strings.TrimSpace(string(out)), "-D", `SOFTHSM="` + module + `"`, "-o", to, "testdata/shim.c", "-ldl"}
	if out, err := exec.CommandContext(t.Context(), "cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	cfg := config()
	cfg.Module = to
	t.Setenv("TOKEN_SHIM", "")
	return cfg
}

func openAs(t *testing.T, cfg token.Config) *token.Token {
	t.Helper()
	tok, err := token.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Close() })
	return tok
}

func newSigner(t *testing.T, tok *token.Token, name string, m token.Made) token.Signer {
	t.Helper()
	if err := token.MakeSigner(tok, name, name, m); err != nil {
		t.Fatal(err)
	}
	k, err := tok.Signer(t.Context(), token.Pair{Label: name})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A token that is taken out is missed, and used again when it is back.
func TestTokenThatIsTakenOut(t *testing.T) {
	cfg := shim(t)
	var now atomic.Int64
	cfg.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	tok := openAs(t, cfg)
	k := newSigner(t, tok, "taken out", token.Made{Curve: elliptic.P256()})
	sum := sha256.Sum256([]byte("m"))
	for range 2 {
		t.Setenv("TOKEN_SHIM", "pulled")
		for range 2 {
			if _, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:]); !errors.Is(err, token.ErrAway) {
				t.Errorf("without a token: %v", err)
			}
		}
		t.Setenv("TOKEN_SHIM", "")
		now.Add(1)
		if sig, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:]); err != nil || !good(k.Public(), crypto.SHA256, sum[:], sig) {
			t.Errorf("when it is back: %v", err)
		}
	}
}

// A module that has no code for a wrong PIN is not given it again and again.
func TestPINThatIsRefusedVaguely(t *testing.T) {
	cfg := shim(t)
	asked, word := 0, pin
	cfg.PIN = func() (secret.Bytes, error) {
		asked++
		return secret.New([]byte(word)), nil
	}
	tok := openAs(t, cfg)
	t.Setenv("TOKEN_SHIM", "vague")
	asked, word = 0, "wrong"
	if err := token.Break(tok); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := tok.Keys(t.Context(), "none"); !errors.Is(err, token.ErrPIN) {
			t.Errorf("after a wrong PIN: %v", err)
		}
	}
	if asked != 1 {
		t.Errorf("the PIN was asked for %d times, want once", asked)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	openAs(t, config()) // which makes the token forget that it counted
}

// A process that is started again and again does not take the last try that a
// token has left; a person may.
func TestLastTryOfThePIN(t *testing.T) {
	cfg := shim(t)
	asked := 0
	cfg.PIN = func() (secret.Bytes, error) {
		asked++
		return secret.New([]byte(pin)), nil
	}
	cfg.Unattended = true
	t.Setenv("TOKEN_SHIM", "last try")
	if _, err := token.Open(cfg); !errors.Is(err, token.ErrPIN) || asked != 0 {
		t.Errorf("%v, asked for the PIN %d times", err, asked)
	}
	cfg.Unattended = false
	openAs(t, cfg)
}

// Of two keys of one name none is taken, also where the module hands out one at a
// time.
func TestObjectsThatComeOneByOne(t *testing.T) {
	tok := openAs(t, shim(t))
	for _, id := range []string{"first", "second"} {
		if err := token.MakeSigner(tok, "one by one", id, token.Made{Curve: elliptic.P256()}); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TOKEN_SHIM", "slow")
	if _, err := tok.Signer(t.Context(), token.Pair{Label: "one by one"}); !errors.Is(err, token.ErrKey) {
		t.Errorf("of two keys one was taken: %v", err)
	}
	if _, err := tok.Signer(t.Context(), token.Pair{Label: "one by one", ID: "second"}); err != nil {
		t.Error(err)
	}
}

// What the token made is verified, whatever the algorithm.
func TestSignatureThatIsDamaged(t *testing.T) {
	tok := openAs(t, shim(t))
	for name, c := range signatures(t) {
		t.Setenv("TOKEN_SHIM", "")
		k := newSigner(t, tok, "damaged "+name, c.make)
		t.Setenv("TOKEN_SHIM", "damages")
		for _, how := range c.how {
			if sig, err := tok.Sign(t.Context(), k, how.opts, how.in); !errors.Is(err, token.ErrKey) || sig != nil {
				t.Errorf("%s: %x, %v", name, sig, err)
			}
		}
	}
}

// A module that does not return is found out, and whoever waits for a session can
// give up.
func TestModuleThatHangs(t *testing.T) {
	cfg := shim(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hung := make(chan struct{}, 8)
	cfg.Sessions = 1
	tok := openAs(t, cfg)
	k := newSigner(t, tok, "hangs", token.Made{Curve: elliptic.P256()})
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Longest, cfg.Hung = time.Second, func() { hung <- struct{}{} } // a login takes a part of it
	tok = openAs(t, cfg)
	t.Setenv("TOKEN_SHIM", "hangs:"+fifo)
	sum := sha256.Sum256([]byte("m"))
	done := make(chan error, 1)
	go func() {
		_, err := tok.Sign(t.Context(), k, crypto.SHA256, sum[:])
		done <- err
	}()
	<-hung
	let, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TOKEN_SHIM", "")
	if err := errors.Join(let.Close(), <-done); err != nil {
		t.Error(err)
	}
}
