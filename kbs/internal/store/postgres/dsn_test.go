package postgres

import (
	"errors"
	"strings"
	"testing"
)

func TestSecure(t *testing.T) {
	for name, c := range map[string]struct {
		dsn      string
		insecure bool
		want     string // "" is refused
	}{
		"a socket":                 {"postgres:///kbs?host=/run/postgresql&user=u", false, "postgres:///kbs?host=/run/postgresql&user=u"},
		"loopback":                 {"postgres://u@127.0.0.1/kbs", false, "postgres://u@127.0.0.1/kbs"},
		"another machine":          {"postgres://u:p@db.example/kbs", false, "postgres://u:p@db.example/kbs?sslmode=verify-full"},
		"key=value":                {"host=db.example user=u", false, "host=db.example user=u sslmode=verify-full"},
		"verified":                 {"postgres://u@db.example/kbs?sslmode=verify-full", false, "postgres://u@db.example/kbs?sslmode=verify-full"},
		"not verified":             {"postgres://u@db.example/kbs?sslmode=require", false, ""},
		"perhaps encrypted":        {"postgres://u@db.example/kbs?sslmode=prefer", false, ""},
		"not encrypted":            {"host=db.example sslmode=disable", false, ""},
		"the name is not verified": {"postgres://u@db.example/kbs?sslmode=verify-ca", false, ""},
		"one of two":               {"postgres://u@127.0.0.1,db.example/kbs?sslmode=disable", false, ""},
		"waived":                   {"postgres://u@db.example/kbs?sslmode=disable", true, "postgres://u@db.example/kbs?sslmode=disable"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Secure(c.dsn, c.insecure)
			if got != c.want || (c.want == "") != errors.Is(err, errTLS) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if _, err := Secure("postgres://u:geheim@db.example:port/kbs", false); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a broken URL: %v", err)
	}
}
