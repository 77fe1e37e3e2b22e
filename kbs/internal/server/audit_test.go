package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// until waits for a condition that other goroutines bring about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("it never came about that %s", what)
		}
	}
}

// While a required sink does not take entries, nothing is released or changed;
// refusals go on, and so does everything once the sink is back.
func TestNoReleaseWithoutARequiredSink(t *testing.T) {
	s := newStage(t)
	s.know()
	s.acceptLab()
	dir := filepath.Join(t.TempDir(), "logs") // not there yet: the sink is down
	path := filepath.Join(dir, "audit.jsonl")
	s.restartWith(func(c *config.Config) {
		c.Audit.Sinks = []config.AuditSink{{Name: "disk", Type: "file", Path: path, Format: "entry", Required: true, MaxLagSec: 30}}
	})
	c := s.client(guest(t, "lab", "agent 1"))
	if _, err := c.Resource(t.Context(), resourceURI); err != nil {
		t.Fatalf("within the time allowed: %v", err)
	}
	s.clock.advance(31 * time.Second)
	put := func() answer {
		return s.admin(http.MethodPut, api.PathRefValues+"/held", []byte(`{"version":-1,"value":[1]}`))
	}
	until(t, "changes are refused", func() bool { return put().status == http.StatusServiceUnavailable })
	if a := put(); a.info(t).Code != string(fault.Unavailable) || a.info(t).Ticket == "" {
		t.Errorf("a change: %d %s", a.status, a.body)
	}
	_, err := c.Resource(t.Context(), resourceURI)
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != fault.Unavailable {
		t.Fatalf("a release: %v", err)
	}
	if x := s.explain(string(f.Ticket)); !strings.Contains(x.Cause, "sink disk is ") {
		t.Errorf("the ticket tells the administrator %+v", x)
	}
	if a := s.send(http.MethodGet, s.adminURL+"/readyz?verbose", nil); a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "[-] audit-sinks failed") {
		t.Errorf("%d %s", a.status, a.body)
	}

	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	until(t, "changes are made again", func() bool { return put().status == http.StatusOK })
	if _, err := c.Resource(t.Context(), resourceURI); err != nil {
		t.Errorf("after the sink came back: %v", err)
	}
	all := s.entries()
	for _, kind := range []api.AuditKind{api.AuditSinkBehind, api.AuditSinkCaught} {
		if n := len(slices.DeleteFunc(slices.Clone(all), func(e api.AuditEntry) bool { return e.Kind != kind })); n != 1 {
			t.Errorf("%d entries of the kind %s", n, kind)
		}
	}
	var lines [][]byte
	until(t, "the file has every entry", func() bool {
		raw, err := os.ReadFile(path)
		lines = bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
		return err == nil && len(lines) >= len(all)
	})
	for i, want := range all {
		var e api.AuditEntry
		if err := json.Unmarshal(lines[i], &e); err != nil || e.Index != want.Index || e.Kind != want.Kind {
			t.Fatalf("line %d: %s", i, lines[i])
		}
	}
}

// Reading the log is in the log: once for a credential and an hour.
func TestReadingIsRecorded(t *testing.T) {
	s := newStage(t)
	count := func() (n int) {
		for _, e := range s.entries() {
			if e.Kind == api.AuditRead {
				n++
			}
		}
		return n
	}
	first := count()
	if again := count(); again != first || first == 0 {
		t.Errorf("%d, then %d", first, again)
	}
	a := s.send(http.MethodGet, s.adminURL+api.PathAudit+"/entries?kind=release", nil, s.role("auditor"))
	if a.status != http.StatusOK || count() != first+1 {
		t.Errorf("another credential: %d %s", a.status, a.body)
	}
	s.clock.advance(time.Hour)
	if n := count(); n != first+2 {
		t.Errorf("%d an hour later", n)
	}
	a = s.send(http.MethodGet, s.adminURL+api.PathAudit+"/entries", nil, s.role("viewer"))
	if a.status != http.StatusForbidden || count() != first+2 {
		t.Errorf("a viewer: %d %s", a.status, a.body)
	}
	for _, query := range []string{"since=now", "until=x", "limit=0", "from=-1", "continue=x"} {
		if a := s.admin(http.MethodGet, api.PathAudit+"/entries?"+query, nil); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// A log that somebody cut is not signed, and the answer says why.
func TestDamagedLogIsACodeOfItsOwn(t *testing.T) {
	s := newStage(t)
	s.must(http.MethodGet, api.PathAudit+"/checkpoint", nil)
	err := s.b.Deps().Store.Update(t.Context(), func(tx store.Tx) error {
		tx = store.Unscoped(tx)
		newest, err := tx.List("audit/entry/", "", 1)
		if err != nil {
			return err
		}
		return tx.Delete(newest[0].Key, store.Any)
	})
	if err != nil {
		t.Fatal(err)
	}
	a := s.admin(http.MethodGet, api.PathAudit+"/checkpoint", nil)
	if a.status != http.StatusInternalServerError || a.info(t).Code != string(fault.AuditDamaged) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The oldest entries can be given up by whoever has them.
func TestArchiveOverTheAPI(t *testing.T) {
	s := newStage(t)
	s.know()
	s.must(http.MethodGet, api.PathAudit+"/checkpoint", nil)
	var page struct {
		Entries []json.RawMessage `json:"entries"`
		First   int64             `json:"first"`
	}
	read := func() {
		t.Helper()
		page.First = 0
		if err := json.Unmarshal(s.must(http.MethodGet, api.PathAudit+"/entries", nil), &page); err != nil {
			t.Fatal(err)
		}
	}
	read()
	tree, err := audit.NewTree(audit.Archived{})
	for _, e := range page.Entries[:4] {
		err = errors.Join(err, tree.Add(e))
	}
	root, rerr := tree.Root()
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	ask := func(a api.AuditArchiving) answer {
		t.Helper()
		raw, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return s.admin(http.MethodPost, api.PathAudit+"/archive", raw)
	}
	for name, a := range map[string]api.AuditArchiving{
		"half a root": {Size: 4, Root: root[:16]}, "nothing": {Root: root[:]}, "another root": {Size: 3, Root: root[:]}, "too many": {Size: 1 << 40, Root: root[:]},
	} {
		if got := ask(a); got.status != http.StatusBadRequest || got.info(t).Code != string(fault.InvalidRequest) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := ask(api.AuditArchiving{Size: 4, Root: root[:]}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	had := decodeAs[api.AuditArchived](t, s.must(http.MethodGet, api.PathAudit+"/archive", nil))
	if had.Size != 4 || !bytes.Equal(had.Root, root[:]) || len(had.Peaks) != 1 || had.Limit != nil {
		t.Errorf("%+v", had)
	}
	if read(); page.First != 4 || len(page.Entries) < 2 || !bytes.Contains(page.Entries[0], []byte(`"index":4`)) {
		t.Errorf("from %d: %s", page.First, page.Entries[0])
	}
	if got := s.admin(http.MethodGet, api.PathAudit+"/inclusion?index=0&size=5", nil); got.status != http.StatusNotFound {
		t.Errorf("a proof of what is archived: %d %s", got.status, got.body)
	}
}
