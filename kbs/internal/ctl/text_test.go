package ctl

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain … ü":          "plain … ü",
		"a\nb":               "a\nb",
		"\x1b[31mred":        `\x1b[31mred`,
		"\u202eevil":         `\u202eevil`,
		"\u009b":             `\u009b`,
		"bad\xff":            `bad\xff`,
		"a\tb":               "a    b",
		"cr\rover":           `cr\rover`,
		"\U000e0001":         `\U000e0001`,
		"kept \\x1b as text": "kept \\x1b as text",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\x07 \u202e \xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Fatalf("clean(%q) = %q", s, got)
		}
		if clean(got) != got {
			t.Fatalf("cleaning %q twice changes it", s)
		}
	})
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 47 * time.Hour: "47h",
		48 * time.Hour: "2d", 3 * 365 * 24 * time.Hour: "3y", -3 * time.Hour: "in 3h",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if age(time.Time{}, now) != "-" || stamp(time.Time{}, now) != "-" {
		t.Error("no time is shown as a time")
	}
	if got := stamp(now.Add(-time.Hour), now); got != "2026-11-22T11:00:00Z (60m ago)" {
		t.Error(got)
	}
}

func TestRenderError(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
		exit int
	}{
		{"ticket", doing(fault.Newf(fault.PolicyDenied, "claim x\nwas y").With("7QK2-M9TD"), "put it"),
			"kbsctl: put it: policy_denied (ticket 7QK2-M9TD)\n  claim x\n  was y\n  hint  kbsctl explain ticket/7QK2-M9TD\n", 2},
		{"usage", usagef("no such %q", "x").hint("try %s", "y"), "kbsctl: no such \"x\"\n  hint  try y\n", 1},
		{"evidence", invalidf("bad proof"), "kbsctl: bad proof\n", 3},
		{"no server", fault.New(fault.Unavailable, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)),
			"kbsctl: unavailable\n  dial: connection refused\n  hint  is the broker running there? choose another with --server, --context or KBS_SERVER\n", 6},
		{"unknown CA", fault.New(fault.Unavailable, x509.UnknownAuthorityError{}),
			"kbsctl: unavailable\n  x509: certificate signed by unknown authority\n" +
				"  hint  name the broker's CA with --ca FILE or KBS_CA; kbs serve writes it to tls/cert.pem in its state directory\n", 6},
		{"exposed token", fmt.Errorf("%w: f", admin.ErrTokenExposed),
			"kbsctl: the token file can be read by other users: f\n  hint  chmod 600 the file, or get a new token: this one may have been read\n", 1},
		{"cancelled", context.Canceled, "kbsctl: context canceled\n", 6},
		{"unknown", errors.New("a\nb\x1b[2J"), "kbsctl: a\n  b\\x1b[2J\n", 1},
		{"exit of a failure wins", existsAlready(3),
			"kbsctl: conflict\n  it exists already, at version 3\n  hint  --overwrite replaces it; what only the old value opens is then lost\n", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := renderError(tt.err); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if got := exitCode(tt.err); got != tt.exit {
				t.Errorf("exit %d, want %d", got, tt.exit)
			}
		})
	}
}

// Every code leads to the exit code that its table says.
func TestExitCodes(t *testing.T) {
	for _, e := range fault.Table() {
		if got := exitCode(fmt.Errorf("x: %w", fault.New(e.Code, nil))); got != e.Exit {
			t.Errorf("%s: exit %d, want %d", e.Code, got, e.Exit)
		}
	}
}

func TestJSONToYAML(t *testing.T) {
	in := `{"z":1,"a":[1.50,"1","yes",null,true,{}],"big":12345678901234567890,"text":"one\ntwo\n","emoji":"\ud83d\ude00","evil":"a\nb\u001b[2J","empty":[]}`
	want := `z: 1
a:
  - 1.50
  - "1"
  - "yes"
  - null
  - true
  - {}
big: 12345678901234567890
text: |
  one
  two
emoji: "\U0001F600"
evil: "a\nb\e[2J"
empty: []
`
	got, err := jsonToYAML([]byte(in))
	if err != nil || string(got) != want {
		t.Fatalf("%v\n%s", err, got)
	}
	if _, err := jsonToYAML([]byte(strings.Repeat("[", 1000) + strings.Repeat("]", 1000))); err == nil {
		t.Fatal("a deep value was accepted")
	}
}

// The explanation of a ticket is the golden text of this page: labels and their
// order do not change unnoticed.
func TestExplainTicket(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	c := &cli{now: func() time.Time { return now }}
	var b bytes.Buffer
	s := &sheet{w: &b}
	c.explainTicket(s, api.Explanation{
		Ticket: "7QK2-M9TD", Code: "policy_denied", Time: now.Add(-3 * time.Minute), Stage: "attest", Platform: "snp",
		Subject: "chip 8f", Object: "prod/image/app", Cause: "no reference value matches\nthe measurement",
		Findings: []api.Finding{
			{Claim: "measurement", Seen: "2f19c4", Wanted: []string{"2f199b", "77aa00"}, Nearest: "guest-1.4.1"},
			{Claim: "policy\x1b[2Jabi", Wanted: strings.Split("abcdefghij", "")},
		},
		Policy: "attestation/default_cpu@3", Rule: "trust_claims", Line: 12, Audit: 42,
	})
	want := `ticket    7QK2-M9TD
code      policy_denied
meaning   A policy denied it.
stage     attest
time      2026-11-22T11:57:00Z (3m ago)
platform  snp
subject   chip 8f
object    prod/image/app
claim     measurement
  seen    2f19c4
  wanted  2f199b
          77aa00
  closest guest-1.4.1
claim     policy\x1b[2Jabi
  seen    (nothing)
  wanted  a
          b
          c
          d
          e
          f
          g
          h
          and 2 more
policy    attestation/default_cpu@3
rule      trust_claims
line      12
cause     no reference value matches
          the measurement
audit     entry 42
hint      kbsctl describe policy/attestation/default_cpu
`
	if s.err != nil || b.String() != want {
		t.Fatalf("%v\n%s", s.err, &b)
	}
}

// JSON and YAML reach terminals too.
func TestDataIsPrintable(t *testing.T) {
	in := map[string]string{"a": "\u009b31m \u202e \x7f \U000e0001 \x1b ü"}
	b, err := encodeJSON(in)
	if err != nil || strings.ContainsFunc(string(b), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Fatalf("%q, %v", b, err)
	}
	var out map[string]string
	if err := json.Unmarshal(b, &out); err != nil || out["a"] != in["a"] {
		t.Fatalf("%q, %v", out, err)
	}
	y, err := jsonToYAML(b)
	if err != nil || strings.ContainsAny(string(y), "\u009b\x7f\x1b") {
		t.Fatalf("%q, %v", y, err)
	}
}

func TestSameJSON(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[2]}`, `{ "b": [2], "a": 1 }`, true},
		{`["a","b"]`, `["b","a"]`, false},
		{`1`, `1.0`, false}, // spelled differently: written again rather than guessed
		{`12345678901234567890`, `12345678901234567891`, false},
		{`{`, `{`, false},
	} {
		if got := sameJSON(json.RawMessage(tt.a), json.RawMessage(tt.b)); got != tt.same {
			t.Errorf("%s and %s: %v", tt.a, tt.b, got)
		}
	}
}
