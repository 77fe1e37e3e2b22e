// Package verdicttest says what a verifier's refusal must consist of.
package verdicttest

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// WantFailures fails the test unless exactly these checks failed, each with
// the text in its reason.
func WantFailures(t testing.TB, err error, want map[measure.CheckName]string) {
	t.Helper()
	ve, ok := errors.AsType[*measure.VerificationError](err)
	if !ok {
		t.Fatalf("got %v, want a VerificationError", err)
	}
	for _, c := range ve.Failed {
		text, expected := want[c.Name]
		if !expected {
			t.Errorf("%s failed too: %s", c.Name, c.Reason)
		} else if !strings.Contains(c.Reason, text) {
			t.Errorf("%s failed because %q, want %q in it", c.Name, c.Reason, text)
		}
	}
	for name := range want {
		if !ve.Has(name) {
			t.Errorf("%s did not fail", name)
		}
	}
}
