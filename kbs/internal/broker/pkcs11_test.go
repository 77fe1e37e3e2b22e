package broker

import (
	"errors"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/kek/remote/remotetest"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource/backendtest"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A broker whose resources are under a token's key: it opens them, is not
// ready while the process is away, and opens them again when it is back.
func TestMasterKeyInAToken(t *testing.T) {
	p := remotetest.Start(t)
	cfg := testConfig(t)
	cfg.MasterKey.KeyHolder = config.KeyHolder{Type: config.MasterKeyPKCS11, Socket: p.Socket}
	cfg.MasterKey.CacheTTLSeconds = 0
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b := open(t, cfg, time.Now())
	if id := b.kek.ID(); id != p.First {
		t.Fatalf("the master key is %s, want %s", id, p.First)
	}
	path := backendtest.Path(t, "a/b/c")
	if _, err := b.Deps().Resources.Apply(t.Context(), resource.Change{Op: resource.OpPut, Path: path, Want: -1, Value: secret.New([]byte("of the token"))}); err != nil {
		t.Fatal(err)
	}
	read := func(b *Broker) error {
		item, err := b.Deps().Resources.Get(t.Context(), path, 0)
		if err == nil && string(item.Value.Reveal()) != "of the token" {
			t.Error("another value")
		}
		return err
	}
	ready := func() (ok bool) {
		for _, c := range b.checks() {
			if c.Name == "master-key" {
				ok = c.Run(t.Context()) == nil
			}
		}
		return ok
	}
	if err := read(b); err != nil || !ready() {
		t.Fatalf("%v, ready %t", err, ready())
	}

	p.Kill()
	if err := read(b); !errors.Is(err, kek.ErrUnavailable) || ready() {
		t.Errorf("without the process: %v, ready %t", err, ready())
	}
	if other, err := Open(t.Context(), cfg, options(time.Now())); !errors.Is(err, kek.ErrUnavailable) {
		t.Errorf("a broker opened without the process: %v, %v", other, err)
	}

	p.Serve()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ready(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not ready again")
		}
	}
	if err := read(b); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := read(open(t, cfg, time.Now())); err != nil {
		t.Errorf("another broker over the same store: %v", err)
	}
}
