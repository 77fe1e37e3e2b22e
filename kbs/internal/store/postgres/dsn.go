package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// errTLS says that whoever answers at the address could be the database.
var errTLS = errors.New("the connection does not verify the server: use sslmode=verify-full, or allow it by insecure_tls")

// Secure returns the data source name with sslmode=verify-full where it names
// none and the server is on another machine: libpq's default takes whoever
// answers, and even goes without encryption. It refuses a weaker sslmode,
// unless insecureTLS allows it.
func Secure(dsn string, insecureTLS bool) (string, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return "", fmt.Errorf("postgres: %w", err) // pgx leaves the password out
	}
	if insecureTLS || !remote(cfg) {
		return dsn, nil
	}
	if !strings.Contains(dsn, "sslmode=") {
		if dsn, err = with(dsn, "sslmode", "verify-full"); err != nil {
			return "", err
		}
		if cfg, err = pgxpool.ParseConfig(dsn); err != nil {
			return "", fmt.Errorf("postgres: %w", err)
		}
	}
	verified := cfg.ConnConfig.TLSConfig != nil && !cfg.ConnConfig.TLSConfig.InsecureSkipVerify
	for _, f := range cfg.ConnConfig.Fallbacks { // other hosts, or less security
		verified = verified && f.TLSConfig != nil && !f.TLSConfig.InsecureSkipVerify
	}
	if !verified {
		return "", fmt.Errorf("postgres: %w", errTLS)
	}
	return dsn, nil
}

// remote reports whether any of the hosts is neither a socket nor loopback.
func remote(cfg *pgxpool.Config) bool {
	hosts := []string{cfg.ConnConfig.Host}
	for _, f := range cfg.ConnConfig.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, h := range hosts {
		ip := net.ParseIP(h)
		if !strings.HasPrefix(h, "/") && h != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}

// with adds a parameter to either form of a data source name.
func with(dsn, name, value string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " " + name + "=" + value, nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("postgres: the URL is not well formed") // url's error would show it
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String(), nil
}
