package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/resource"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// testBroker is the real broker in this process, behind a listener of the
// test's own: scripts can make things happen behind kbsctl's back.
type testBroker struct {
	dir  string // state directory
	http *httptest.Server
	shut func() error // ends what open began

	configure func(*config.Config) // changes the configuration
	idp       *idp

	mu      sync.Mutex
	broker  *broker.Broker
	handler http.Handler
	race    map[string]bool // names of reference values, and paths of resources, that change before the next write
	lie     func(http.ResponseWriter, *http.Request) bool
	asked   map[string]chan struct{} // by path; takes one element for each answer, if there is a channel
}

func startBroker(dir string) (*testBroker, error) {
	b := &testBroker{dir: dir, race: map[string]bool{}, asked: map[string]chan struct{}{}}
	if err := b.open(); err != nil {
		return nil, err
	}
	b.http = httptest.NewUnstartedServer(http.HandlerFunc(b.serve))
	b.http.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that lack the CA
	b.http.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.http.Certificate().Raw})
	return b, os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600)
}

func (b *testBroker) open() error {
	cfg := config.Default(func(string) string { return "" })
	cfg.StateDir = b.dir
	if b.configure != nil {
		b.configure(&cfg)
	}
	opened, err := broker.Open(context.Background(), cfg,
		broker.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Version: "test"})
	if err != nil {
		return err
	}
	b.set(func() { b.broker, b.handler = opened, opened.Admin() })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		opened.Maintain(ctx)
	}()
	b.shut = func() error {
		cancel()
		<-done
		return opened.Close()
	}
	return nil
}

func (b *testBroker) close() {
	b.http.Close()
	_ = b.shut()
}

func (b *testBroker) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// serve lets scripts change things between two requests of one command, and
// answer in the broker's place.
func (b *testBroker) serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, api.PathRefValues+"/")
	b.mu.Lock()
	handler, refs, lie, asked := b.handler, b.broker.Deps().RefValues, b.lie, b.asked[r.URL.Path]
	path, about := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, api.PathResources+"/"), "/metadata")
	if (about || r.Method == http.MethodDelete) && b.race[path] {
		delete(b.race, path)
		if err := b.overtake(r.Context(), path); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	hit := (r.Method == http.MethodPut || r.Method == http.MethodDelete) && b.race[name]
	if hit {
		delete(b.race, name)
	}
	b.mu.Unlock()
	if hit {
		_, err := refs.Put(r.Context(), api.RefValue{Name: name, Version: -1, Value: json.RawMessage(`["somebody else"]`)})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if asked != nil {
		defer func() {
			select {
			case asked <- struct{}{}:
			case <-r.Context().Done():
			}
		}()
	}
	if lie != nil && lie(w, r) {
		return
	}
	handler.ServeHTTP(w, r)
}

// overtake changes what is said about a resource, as another administrator
// does.
func (b *testBroker) overtake(ctx context.Context, path string) error {
	p, err := resource.ParsePath(path)
	if err != nil {
		return err
	}
	all := b.broker.Deps().Resources
	info, err := all.Describe(ctx, p)
	if err != nil {
		return err
	}
	info.Owner = "somebody else"
	_, err = all.Apply(ctx, resource.Change{Op: resource.OpMeta, Path: p, Want: info.Version, Meta: &info.ResourceMeta})
	return err
}

// issue replaces the administrator's token by one of the given role.
func (b *testBroker) issue(role admin.Role) error {
	return b.issueFor(admin.Token{Grant: admin.Grant{Role: role}, Subject: "tester", Lifetime: time.Hour})
}

func (b *testBroker) issueFor(t admin.Token) error {
	token, err := broker.IssueToken(b.dir, t, time.Now().Add(-time.Second))
	if err != nil {
		return err
	}
	return writeFile(broker.AdminTokenPath(b.dir), string(token.Reveal()))
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

// refuse records a refusal as attestation does.
func (b *testBroker) refuse(ctx context.Context, code fault.Code) (fault.Ticket, error) {
	return b.broker.Deps().Tickets.Record(ctx, api.Explanation{
		Code: string(code), Stage: "attest", Platform: "snp", Subject: "chip 8f\x1b[2J", Object: "prod/image/app",
		Cause:    "the measurement is not among the reference values",
		Findings: []api.Finding{{Claim: "measurement", Seen: "2f19c4", Wanted: []string{"2f199b"}, Nearest: "guest-1.4.1"}},
		Policy:   "attestation/default_cpu@1", Rule: "executables", Line: 56,
	}, api.AuditEntry{Kind: "attest", Decision: "deny"})
}

// lend gives an object to a guest on a chip, as a release does.
func (b *testBroker) lend(ctx context.Context, object, chip, tokenID string) error {
	_, _, err := b.broker.Deps().Leases.Record(ctx, lease.Grant{
		Guest: lease.Guest{ID: "guest-" + chip, Claims: map[string]string{"snp.chip_id": chip}}, Platform: "snp", TokenID: tokenID,
		Object: object, Version: 3, Until: time.Now().Add(5 * time.Minute),
	}, func(store.Tx) error { return nil })
	return err
}

// tamper removes the newest entry of the audit log, as somebody who can write
// to the store.
func (b *testBroker) tamper() error {
	return b.broker.Deps().Store.Update(context.Background(), func(tx store.Tx) error {
		tx = store.Unscoped(tx)
		newest, err := tx.List("audit/entry/", "", 1)
		if err != nil {
			return err
		}
		return tx.Delete(newest[0].Key, store.Any)
	})
}

// copyState stops the broker, copies its state from one directory to another,
// and starts it again.
func (b *testBroker) copyState(from, to string) error {
	if err := b.shut(); err != nil {
		return err
	}
	err := os.RemoveAll(to)
	return errors.Join(err, os.CopyFS(to, os.DirFS(from)), privatize(to), b.open())
}

// privatize undoes what a copy does to the permissions of keys.
func privatize(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}

// hush is a random text that no output may contain.
func hush() string { return "hush-" + strings.ToLower(rand.Text()) }
