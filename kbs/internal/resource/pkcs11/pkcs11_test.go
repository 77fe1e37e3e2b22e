package pkcs11_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote/remotetest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	values "github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/pkcs11"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

func open(t *testing.T, p *remotetest.Process) (*values.Backend, *pkcs11.Token) {
	t.Helper()
	tok, err := pkcs11.Open(p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Close() })
	return values.New(tok), tok
}

// The contract, by a real token.
func TestContract(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Backend {
		b, _ := open(t, remotetest.Start(t))
		return backendtest.Backend{Backend: b, MaxValue: pkcs11.MaxValue}
	})
}

func store1(t *testing.T, b *values.Backend, value string) resource.Path {
	t.Helper()
	p := backendtest.Path(t, "a/b/c")
	_, err := b.Apply(t.Context(), resource.Change{Op: resource.OpPut, Path: p, Want: int64(store.Any), Value: secret.Copy([]byte(value))})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// until asks again and again: a connection that was lost is made anew.
func until(t *testing.T, b *values.Backend, p resource.Path, want string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		item, err := b.Get(t.Context(), p, 0)
		if err == nil && string(item.Value.Reveal()) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes, %v", item.Value.Len(), err)
		}
	}
}

func TestProcessThatDies(t *testing.T) {
	proc := remotetest.Start(t)
	b, _ := open(t, proc)
	p := store1(t, b, "kept")
	proc.Kill()
	if _, err := b.Get(t.Context(), p, 0); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("without the process: %v", err)
	}
	proc.Serve()
	until(t, b, p, "kept")
}

// A PIN that is refused ends the start, and says why; the broker's callers
// learn that the place is away, not why.
func TestWrongPIN(t *testing.T) {
	proc := remotetest.Start(t)
	b, _ := open(t, proc)
	p := store1(t, b, "kept")
	proc.Kill()
	proc.SetPIN("of-no-test")
	if proc.TryServe() {
		t.Fatal("it serves")
	}
	if code, _ := proc.Ended(); code != fault.ExitUsage {
		t.Errorf("exit code %d", code)
	}
	if _, err := b.Get(t.Context(), p, 0); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	proc.SetPIN(proc.PIN)
	proc.Serve()
	until(t, b, p, "kept")
}

// A module that hangs costs its callers the time that they gave, and nobody
// else; when it goes on, so does all else.
func TestModuleThatHangs(t *testing.T) {
	proc := remotetest.StartHanging(t)
	b, _ := open(t, proc)
	p := store1(t, b, "kept")
	proc.Hang()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := b.Get(ctx, p, 0)
		cancel()
		if fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("while it hangs: %v", err)
		}
	}
	proc.Recover()
	until(t, b, p, "kept")
}

// One that hangs for good ends the process, which can then be started again.
func TestModuleThatHangsForGood(t *testing.T) {
	proc := remotetest.StartHanging(t)
	b, _ := open(t, proc)
	p := store1(t, b, "kept")
	proc.Kill()
	proc.Configure("resources = true\nhang_seconds = 1\n")
	proc.Serve()
	proc.Hang()
	if _, err := b.Get(t.Context(), p, 0); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("while it hangs: %v", err)
	}
	if code, said := proc.Ended(); code != fault.ExitUnavailable || !strings.Contains(said, "took more than 1s") {
		t.Errorf("exit code %d, %s", code, said)
	}
	proc.Recover()
	proc.Serve()
	until(t, b, p, "kept")
}

// What the process is not set up to serve is not there for anybody.
func TestNotServed(t *testing.T) {
	proc := remotetest.Start(t)
	b, tok := open(t, proc)
	p := store1(t, b, "kept")
	proc.Kill()
	proc.Configure("")
	proc.Serve()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		_, err := b.Get(t.Context(), p, 0)
		_, wrap := tok.Wrap(t.Context(), secret.Random(32))
		if fault.CodeOf(err) != fault.Unavailable || fault.CodeOf(wrap) != fault.Unavailable {
			t.Fatalf("%v, %v", err, wrap)
		}
		if f, ok := errors.AsType[*fault.Fault](err); ok && strings.Contains(errors.Unwrap(f).Error(), "Unimplemented") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestPair(t *testing.T) {
	proc := remotetest.Start(t)
	proc.AddPair()
	_, tok := open(t, proc)
	value := secret.Random(300)
	wrapped, err := tok.Wrap(t.Context(), value)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := tok.Unwrap(t.Context(), wrapped); err != nil || !back.Equal(value) {
		t.Errorf("unwrap: %v", err)
	}
	wrapped[7] ^= 1
	if _, err := tok.Unwrap(t.Context(), wrapped); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("altered: %v", err)
	}
	if _, err := tok.Wrap(t.Context(), secret.Random(385)); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("too large: %v", err)
	}
}
