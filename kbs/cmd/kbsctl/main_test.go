package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/broker"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"kbsctl": main}) }

// Each script has a broker, an empty home, and the environment that names them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			state := t.TempDir()
			b, err := startBroker(state)
			if err != nil {
				return err
			}
			e.Defer(b.close)
			e.Values[brokerKey{}] = b
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("STATE", state)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command sleeps for a second when it ends
			e.Setenv("KBS_SERVER", b.http.URL)
			e.Setenv("KBS_CA", filepath.Join(state, "ca.pem"))
			e.Setenv("KBS_TOKEN_FILE", broker.AdminTokenPath(state))
			return b.issue(admin.Owner)
		},
		Condition: func(c string) (bool, error) {
			if c != "root" {
				return false, fmt.Errorf("no condition %q", c)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"corim":    cmdCoRIM,
			"flip":     cmdFlip,
			"exits":    cmdExits,
			"refuse":   cmdRefuse,
			"race":     cmdRace,
			"role":     cmdRole,
			"stop-kbs": cmdStop,
			"lie":      cmdLie,
			"tamper":   cmdTamper,
			"registry": cmdRegistry,
			"private":  cmdPrivate,
			"faulty":   cmdFaulty,
			"torn":     cmdTorn,
			"multi":    cmdMulti,
			"mkconf":   cmdMkConf,
			"hush":     cmdHush,
			"mode":     cmdMode,
			"bytes":    cmdBytes,
			"snapshot": cmdSnapshot,
			"rollback": cmdRollback,
			"ask":      cmdAsk,
			"idp":      cmdIDP,
			"person":   cmdPerson,
			"plugin":   cmdPlugin,
			"as":       cmdAs,
			"holds":    cmdHolds,
			"looks":    cmdLooks,
			"packet":   cmdPacket,
			"lend":     cmdLend,
			"agent":    cmdAgent,
			"asks":     cmdAsks,
			"verdict":  cmdVerdict,
			"evidence": cmdEvidence,
		},
	})
}

type brokerKey struct{}

func brokerOf(ts *testscript.TestScript) *testBroker { return ts.Value(brokerKey{}).(*testBroker) }

// exits CODE kbsctl ARGS... runs a command and checks its exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// refuse VAR CODE records a refusal and sets VAR to its ticket.
func cmdRefuse(ts *testscript.TestScript, _ bool, args []string) {
	ticket, err := brokerOf(ts).refuse(context.Background(), fault.Code(args[1]))
	ts.Check(err)
	ts.Setenv(args[0], string(ticket))
}

// lend OBJECT CHIP TOKEN-ID gives an object to a guest on a chip.
func cmdLend(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(brokerOf(ts).lend(context.Background(), args[0], args[1], args[2]))
}

// race NAME lets somebody else change a reference value just before the next write.
func cmdRace(ts *testscript.TestScript, _ bool, args []string) {
	b := brokerOf(ts)
	b.set(func() { b.race[args[0]] = true })
}

// role ROLE replaces the token by one of that role.
func cmdRole(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(brokerOf(ts).issue(admin.Role(args[0])))
}

// as SUBJECT ROLE [TENANT...] replaces the token by one for somebody else.
func cmdAs(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(brokerOf(ts).issueFor(admin.Token{
		Grant: admin.Grant{Role: admin.Role(args[1]), Tenants: args[2:]}, Subject: args[0], Lifetime: time.Hour,
	}))
}

// holds PATH makes every request of that path wait, once it is answered, until
// the script lets it go: looks N PATH lets N of them go.
func cmdHolds(ts *testscript.TestScript, _ bool, args []string) {
	b := brokerOf(ts)
	b.set(func() { b.asked[args[0]] = make(chan struct{}) })
}

func cmdLooks(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	b := brokerOf(ts)
	var asked chan struct{}
	b.set(func() { asked = b.asked[args[1]] })
	for range n {
		<-asked
	}
}

// stop-kbs stops the broker.
func cmdStop(ts *testscript.TestScript, _ bool, _ []string) { brokerOf(ts).http.Close() }

// tamper removes the newest entry of the audit log from the store.
func cmdTamper(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(brokerOf(ts).tamper()) }

// lie WHAT makes the broker lie: edit, drop or add an audit entry, give
// another key, be down, or tell the truth again.
func cmdLie(ts *testscript.TestScript, _ bool, args []string) {
	lies := map[string]func(http.ResponseWriter, *http.Request) bool{
		"nothing": nil,
		"down": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "<html>down", http.StatusServiceUnavailable)
			return true
		},
		"edit": rewrite(func(e []json.RawMessage) []json.RawMessage {
			e[0] = bytes.Replace(e[0], []byte(`"time"`), []byte(`"emit"`), 1)
			return e
		}),
		"drop": rewrite(func(e []json.RawMessage) []json.RawMessage { return e[1:] }),
		"garble": func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, "/checkpoint") && write(w, "a log\n5\nAAAA\n")
		},
		"key": func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, "/keys") && write(w, `{"current":"kbs.test/audit+00000000+AAAA"}`)
		},
	}
	lie, ok := lies[args[0]]
	if !ok {
		ts.Fatalf("no lie %q", args[0])
	}
	b := brokerOf(ts)
	b.set(func() { b.lie = lie })
}

func write(w http.ResponseWriter, s string) bool {
	_, _ = io.WriteString(w, s)
	return true
}

// rewrite answers for the audit entries with a changed copy of the answer.
func rewrite(f func([]json.RawMessage) []json.RawMessage) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != api.PathAudit+"/entries" || r.Header.Get("X-Honest") != "" || r.URL.Query().Get("from") != "0" {
			return false
		}
		honest := r.Context().Value(http.ServerContextKey).(*http.Server).Handler
		again := r.Clone(r.Context())
		again.Header.Set("X-Honest", "yes")
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, again)
		var page struct {
			Entries []json.RawMessage `json:"entries"`
		}
		if json.Unmarshal(rec.Body.Bytes(), &page) != nil || len(page.Entries) == 0 {
			return false
		}
		var out []string
		for _, e := range f(page.Entries) {
			out = append(out, string(e))
		}
		return write(w, `{"entries":[`+strings.Join(out, ",")+`]}`)
	}
}

// snapshot DIR keeps a copy of the broker's state; rollback DIR puts it back,
// as somebody would who wants a log to forget.
func cmdSnapshot(ts *testscript.TestScript, _ bool, args []string) {
	b := brokerOf(ts)
	ts.Check(b.copyState(b.dir, ts.MkAbs(args[0])))
}

func cmdRollback(ts *testscript.TestScript, _ bool, args []string) {
	b := brokerOf(ts)
	ts.Check(b.copyState(ts.MkAbs(args[0]), b.dir))
}

// ask WANT PATH STATUS asks the policies in force whether a guest of that status
// may have a resource: allow or deny.
func cmdAsk(ts *testscript.TestScript, _ bool, args []string) {
	d, err := brokerOf(ts).broker.Deps().Engine.Authorize(context.Background(), policy.Release{
		Plugin: "resource", Path: strings.Split(args[1], "/"),
		Claims: fmt.Appendf(nil, `{"iat":%d,"submods":{"cpu0":{"ear.status":%q}}}`, time.Now().UnixNano(), args[2]),
	})
	ts.Check(err)
	if d.Allow != (args[0] == "allow") {
		ts.Fatalf("allow is %v by %s", d.Allow, d.Policy)
	}
}

// registry VAR starts a registry without TLS, which holds app:1, and sets VAR
// to its host and port.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ts.Defer(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	image, err := random.Image(2000, 2)
	ts.Check(err)
	config, err := image.ConfigFile()
	ts.Check(err)
	config.OS, config.Config.Cmd = "linux", []string{"/app", "--serve"}
	image, err = mutate.ConfigFile(image, config)
	ts.Check(err)
	ref, err := name.ParseReference(host+"/app:1", name.Insecure)
	ts.Check(err)
	ts.Check(remote.Write(ref, image))
	ts.Setenv(args[0], host)
}

// hush VAR FILE writes a random secret to FILE and sets VAR to it.
func cmdHush(ts *testscript.TestScript, _ bool, args []string) {
	s := hush()
	ts.Setenv(args[0], s)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(s), 0o600))
}

// mode WANT FILE checks the permissions of a file.
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatInt(int64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// bytes N FILE writes N arbitrary bytes.
func cmdBytes(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), bytes.Repeat([]byte{0xa5}, n), 0o600))
}
