package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// A person is told why the broker was not reached, and never what stands behind a
// refusal.
func TestPersonIsToldWhatIsLocal(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		told bool
	}{
		"not reached":            {fault.Newf(fault.Unavailable, "the reason"), true},
		"no question":            {fault.Newf(fault.InvalidRequest, "the reason"), true},
		"refused":                {fault.Newf(fault.PolicyDenied, "the reason"), false},
		"not reached, by ticket": {fault.Newf(fault.Unavailable, "the reason").With("7QK2-M9TD"), false},
	} {
		err := told(tt.err)
		if strings.Contains(err.Error(), "the reason") != tt.told || !errors.Is(err, tt.err) || fault.ExitOf(err) != fault.ExitOf(tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if told(nil) != nil {
		t.Error("nothing went wrong")
	}
}
