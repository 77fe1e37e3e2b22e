package ctl

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

func TestEndedToken(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	jwt := func(payload string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	}
	for name, tt := range map[string]struct {
		token string
		err   error
		want  bool
	}{
		"ended":                 {jwt(fmt.Sprintf(`{"exp":%d}`, now.Add(-time.Hour).Unix())), fault.Newf(fault.Unauthenticated, "no"), true},
		"not ended":             {jwt(fmt.Sprintf(`{"exp":%d}`, now.Add(time.Hour).Unix())), fault.Newf(fault.Unauthenticated, "no"), false},
		"without an end":        {jwt(`{}`), fault.Newf(fault.Unauthenticated, "no"), false},
		"no JSON":               {jwt(`x`), fault.Newf(fault.Unauthenticated, "no"), false},
		"no JWT":                {"opaque", fault.Newf(fault.Unauthenticated, "no"), false},
		"far too large":         {jwt(`{"exp":1e300}`), fault.Newf(fault.Unauthenticated, "no"), false},
		"refused for its role":  {jwt(`{"exp":1}`), fault.Newf(fault.Forbidden, "no"), false},
		"the broker is not up":  {jwt(`{"exp":1}`), fault.Newf(fault.Unavailable, "no"), false},
		"another kind of error": {jwt(`{"exp":1}`), os.ErrNotExist, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tt.token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c := &cli{env: func(string) string { return "" }, now: func() time.Time { return now }}
			c.flags.tokenFile = file
			err := c.endedToken(tt.err)
			text := renderError(err)
			if got := strings.Contains(text, "ended at 2027-01-31T11:00:00Z") && strings.Contains(text, file); got != tt.want {
				t.Errorf("%q: told is %t, want %t", text, got, tt.want)
			}
			if exitCode(err) != exitCode(tt.err) {
				t.Errorf("the exit code is %d, was %d", exitCode(err), exitCode(tt.err))
			}
		})
	}
}
