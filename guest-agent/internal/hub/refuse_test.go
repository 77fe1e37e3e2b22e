package hub

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

type refusal = api.GuestRefusal

type reporterFunc func(context.Context, refusal) (fault.Ticket, error)

func (f reporterFunc) ReportRefusal(ctx context.Context, r refusal) (fault.Ticket, error) {
	return f(ctx, r)
}

func TestRefuseCodes(t *testing.T) {
	tests := map[string]struct {
		err  error
		code fault.Code
	}{
		"fault":        {fault.New(fault.ImageKey, errors.New("x")), fault.ImageKey},
		"no cause":     {fault.New(fault.NotFound, nil), fault.NotFound},
		"unclassified": {errors.New("x"), fault.Internal},
		"cancelled":    {context.Canceled, fault.Unavailable},
		"out of time":  {context.DeadlineExceeded, fault.Unavailable},
		"fault, late":  {fault.New(fault.ImageCorrupt, context.Canceled), fault.ImageCorrupt},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var journal bytes.Buffer
			err := NewRefuser(nil, &journal, discard()).Refuse(t.Context(), ObjectImage, "ref", tc.err)
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != tc.code || f.Ticket == "" || !strings.Contains(journal.String(), string(f.Ticket)) {
				t.Fatalf("got %v, journal %s", err, journal.String())
			}
		})
	}
}

type launchField [32]byte

func (f launchField) BindInitData(_ context.Context, digest []byte) error {
	return initdata.CompareField(f[:], digest)
}

// Init-data names the broker, so when it is not what was launched there is
// nobody to tell: the ticket is local and the digests stay in the journal.
func TestInitDataMismatchIsLocal(t *testing.T) {
	doc, err := initdata.Parse([]byte(testDocument))
	if err != nil {
		t.Fatal(err)
	}
	var journal, log bytes.Buffer
	r := NewRefuser(nil, &journal, slog.New(slog.NewTextHandler(&log, nil)))
	err = r.Refuse(t.Context(), ObjectInitData, "", settings.CheckBinding(t.Context(), doc, launchField{1}))
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != fault.InitDataMismatch || f.Ticket == "" {
		t.Fatalf("got %v", err)
	}
	digest := hex.EncodeToString(doc.Digest())
	if !strings.Contains(journal.String(), digest) || !strings.Contains(journal.String(), string(f.Ticket)) {
		t.Errorf("journal %s", journal.String())
	}
	if strings.Contains(log.String()+err.Error(), digest) || !strings.Contains(log.String(), string(f.Ticket)) {
		t.Errorf("log %s", log.String())
	}
}

// A broker that was just out of reach is not asked for a ticket, or every
// refusal of a guest that lost its broker would take five seconds more.
func TestUnavailableIsNotReported(t *testing.T) {
	var journal bytes.Buffer
	r := NewRefuser(nil, &journal, discard())
	r.broker = reporterFunc(func(context.Context, refusal) (fault.Ticket, error) {
		t.Error("the broker was asked")
		return "", nil
	})
	_ = r.Refuse(t.Context(), ObjectResource, "kbs:///a/b/c", fault.New(fault.Unavailable, errors.New("dial")))
	if journal.Len() == 0 {
		t.Error("nothing in the journal")
	}
}

// Causes come from hostile registries: they are cut and made valid text.
func TestDescribeIsBounded(t *testing.T) {
	long := strings.Repeat("é\xff", maxCause)
	g := describe(fault.New(fault.ImageCorrupt, errors.New(long)), long)
	for _, s := range []string{g.Cause, g.Object} {
		if len(s) > maxCause || !utf8.ValidString(s) {
			t.Errorf("%d bytes, valid %v", len(s), utf8.ValidString(s))
		}
	}
	if _, err := json.Marshal(g); err != nil {
		t.Error(err)
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "private", "refusals")
	j, err := OpenJournal(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := func(c byte) []byte { return append(bytes.Repeat([]byte{c}, 39), '\n') }
	for _, c := range []byte("abcde") {
		if n, err := j.Write(line(c)); n != 40 || err != nil {
			t.Fatalf("%c: %d, %v", c, n, err)
		}
	}
	for name, want := range map[string]string{path: string(line('e')), path + ".1": string(line('c')) + string(line('d'))} {
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", info.Mode(), err)
	}
	if _, err := j.Write(make([]byte, 101)); err == nil {
		t.Error("took an entry larger than the journal")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write(line('f')); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if j, err = OpenJournal(path, 100); err != nil { // goes on where it stopped
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	if _, err := j.Write(line('g')); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(line('e'))+string(line('g')) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestJournalIsNotRedirected(t *testing.T) {
	dir := t.TempDir()
	target, path := filepath.Join(dir, "target"), filepath.Join(dir, "refusals")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, 100); err == nil {
		t.Fatal("followed a symbolic link")
	}
	if _, err := OpenJournal(dir, 100); err == nil {
		t.Fatal("took a directory")
	}
	if _, err := OpenJournal(target, 0); err == nil {
		t.Fatal("took no limit")
	}
}

func TestKeyURI(t *testing.T) {
	for kid, want := range map[string]string{
		"kbs:///default/image-kek/a1":          "kbs:///default/image-kek/a1",
		"/default/image-kek/a1":                "kbs:///default/image-kek/a1",
		"kbs://kbs.example:8080/default/key/1": "kbs://kbs.example:8080/default/key/1",
		"kbs+resource:///a/b/c":                "kbs:///a/b/c",
		"kbs+pkcs11:///a/b/c":                  "",
		"kbs:///a/b":                           "",
		"kbs:///a/b/c/d":                       "",
		"kbs:///a/../c":                        "",
		"kbs:///a/b/c?x=1":                     "",
		"https://evil/a/b/c":                   "",
		"":                                     "",
	} {
		got, err := keyURI(kid)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("keyURI(%q) = %q, %v, want %q", kid, got, err, want)
		}
	}
}

func FuzzKeyURI(f *testing.F) {
	f.Add("kbs:///default/image-kek/a1")
	f.Add("/a/b/c")
	f.Add("kbs+resource://host/a/b/c?x")
	f.Fuzz(func(t *testing.T, kid string) {
		uri, err := keyURI(kid)
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(uri, "kbs://")
		_, path, _ := strings.Cut(rest, "/")
		if !ok || strings.Count(path, "/") != 2 || strings.ContainsAny(path, "?#%@:") {
			t.Fatalf("%q became %q", kid, uri)
		}
		if again, err := keyURI(uri); err != nil || again != uri {
			t.Fatalf("%q is not stable: %q, %v", uri, again, err)
		}
	})
}
