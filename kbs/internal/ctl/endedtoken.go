package ctl

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// endedToken adds to a broker's refusal of a token that it has ended, where that is
// so: the broker tells no stranger what is wrong with a token, but its bearer can
// read it.
func (c *cli) endedToken(err error) error {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != fault.Unauthenticated {
		return err
	}
	s, serr := c.settings()
	if serr != nil || s.TokenFile == "" {
		return err
	}
	token, terr := admin.ReadToken(s.TokenFile)
	if terr != nil {
		return err
	}
	defer token.Destroy()
	end, ok := expiry(string(token.Reveal()))
	if !ok || c.now().Before(end) {
		return err
	}
	return (&failure{err: err, exit: fault.ExitOf(err)}).
		hint("the token in %s ended at %s; get another: kbsctl login, or where the broker runs kbs admin-token >FILE", s.TokenFile, end.UTC().Format(time.RFC3339))
}

// expiry reads when a JWT (RFC 7519) says that it ends. Nothing is verified.
func expiry(jwt string) (time.Time, bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(raw, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Expires), 0), true
}
