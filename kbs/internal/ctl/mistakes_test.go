package ctl

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// A kind that is misspelt is told from the others by how it begins or ends.
func TestMisspeltKinds(t *testing.T) {
	for text, want := range map[string]string{
		"polices": "did you mean policy?", "resorce": "did you mean resource?", "tikets": "did you mean ticket?", "tenat": "did you mean tenant?", "xy": "kinds are ",
	} {
		_, err := findKind(text)
		if err == nil {
			t.Fatalf("%s is a kind", text)
		}
		if hint := hintFor(err); !strings.HasPrefix(hint, want) {
			t.Errorf("%s: %q, want %q", text, hint, want)
		}
	}
}

// An unknown key of a document is named as its author wrote it.
func TestUnknownKeyOfADocument(t *testing.T) {
	_, err := parseManifests([]byte("kind: RefValue\nmetadata: {nam: x}\nspec: {value: [1]}\n"), "x.yaml", ".")
	if err == nil || !strings.Contains(err.Error(), "line 2: unknown key nam") || strings.Contains(err.Error(), "ctl.") {
		t.Errorf("%v", err)
	}
}

// What a stranger meets first at a wrong address says where the right one is.
func TestHintsAboutAddresses(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"no such object":  {missing(fault.Newf(fault.NotFound, "no"), "kbsctl list %s", "policy"), "kbsctl list policy"},
		"not missing":     {missing(fault.Newf(fault.Forbidden, "no"), "kbsctl list %s", "policy"), "role"},
		"without TLS":     {fault.Newf(fault.InvalidRequest, "the broker answered HTTP status 400"), "https://"},
		"no such name":    {fault.Newf(fault.Unavailable, "%w", &net.DNSError{Err: "no such host"}), "--server"},
		"a bad request":   {fault.Newf(fault.InvalidRequest, "bad name"), ""},
		"a refused token": {fault.Newf(fault.Unauthenticated, "no").With("7QK2-M9TD"), "kbsctl login"},
	} {
		hint := hintFor(errors.Join(tt.err))
		if !strings.Contains(hint, tt.want) || tt.want == "" && hint != "" {
			t.Errorf("%s: %q, want %q", name, hint, tt.want)
		}
	}
}
