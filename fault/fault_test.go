package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
)

// The host sees every error that the runtime prints, so the cause must not
// come out of any printer.
func TestCauseStaysPrivate(t *testing.T) {
	f := New(PolicyDenied, errors.New("measurement 2f19 is not in reference value guest-1.4")).With("7QK2-M9TD")
	wrapped := fmt.Errorf("pull: %w", f)
	var buf bytes.Buffer
	for _, v := range []any{f, wrapped, struct{ F *Fault }{f}, []error{f}} {
		fmt.Fprintf(&buf, "%v %+v %#v %s %q\n", v, v, v, v, v)
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "err", v)
		slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "err", v)
		_ = json.NewEncoder(&buf).Encode(v)
	}
	if strings.Contains(buf.String(), "2f19") {
		t.Fatalf("the cause leaked: %s", buf.String())
	}
	if got := wrapped.Error(); got != "pull: policy_denied (ticket 7QK2-M9TD)" {
		t.Fatalf("public text: %q", got)
	}
}

func TestFirstRefusalWins(t *testing.T) {
	first := New(ImageCorrupt, fs.ErrInvalid).With("AAAA-BBBB")
	f := New(Internal, fmt.Errorf("layer 3: %w", first))
	if f.Code != ImageCorrupt || f.Ticket != "AAAA-BBBB" || !errors.Is(f, fs.ErrInvalid) {
		t.Fatalf("got %v", f)
	}
	if CodeOf(errors.New("x")) != Internal || CodeOf(fmt.Errorf("y: %w", first)) != ImageCorrupt {
		t.Fatal("CodeOf")
	}
}

func TestTickets(t *testing.T) {
	seen := map[Ticket]bool{}
	for range 1000 {
		k := NewTicket()
		if p, err := ParseTicket(string(k)); err != nil || p != k {
			t.Fatalf("%q: %v", k, err)
		}
		if seen[k] {
			t.Fatalf("%q drawn twice in a thousand", k)
		}
		seen[k] = true
	}
	for _, bad := range []string{"", "7QK2M9TD", "7qk2-m9td", "7QK2-M9TI", "7QK2-M9TD\n", "../../etc"} {
		if _, err := ParseTicket(bad); err == nil {
			t.Errorf("ParseTicket(%q) accepted", bad)
		}
	}
}

func TestTableIsComplete(t *testing.T) {
	seen := map[Code]bool{}
	for _, e := range Table() {
		if seen[e.Code] || e.Meaning == "" || (e.Status < 400 && e.Status != 202) || e.Exit == ExitOK || e.Exit > ExitDifferent {
			t.Errorf("bad row %+v", e)
		}
		seen[e.Code] = true
		if !e.Code.Known() || e.Code.Status() != e.Status || e.Code.Exit() != e.Exit {
			t.Errorf("%s does not find its row", e.Code)
		}
	}
	for status, want := range map[int]Code{400: InvalidRequest, 401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict, 412: Conflict,
		413: TooLarge, 429: TooMany, 302: Unavailable, 503: Unavailable, 500: Internal, 418: Internal} {
		if got := OfStatus(status); got != want {
			t.Errorf("status %d is %s, not %s", status, got, want)
		}
	}
	if Code("made-up").Known() || Code("made-up").Status() != 500 {
		t.Error("an unknown code passes for a known one")
	}
}
