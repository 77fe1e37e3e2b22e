package config

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// Kinds of stores.
const (
	StorageSQLite   = "sqlite"
	StoragePostgres = "postgres"
)

// StorageBackend says where the broker keeps its state (kbs-protocol 13.1).
type StorageBackend struct {
	// StorageType is sqlite or postgres. The field's LocalFs means what it means
	// there, state in a local directory, and so SQLite; what another broker left
	// in that directory is not read.
	StorageType string          `toml:"storage_type"`
	Backends    StorageBackends `toml:"backends"`
}

// StorageBackends has one table for each kind.
type StorageBackends struct {
	LocalFs  LocalFs  `toml:"local_fs"`
	Postgres Postgres `toml:"postgres"`
}

// LocalFs is where SQLite keeps its file.
type LocalFs struct {
	// DirPath of kbs.db; by default the state directory.
	DirPath string `toml:"dir_path,omitempty" kind:"path"`
}

// Postgres says how to reach a PostgreSQL server.
type Postgres struct {
	// URL (postgres://…) goes before all but insecure_tls; so does the field's
	// variable POSTGRES_URL. It may hold a password, so a dump does not show it.
	URL Hidden `toml:"url,omitempty" kind:"secret"`
	// URLFile holds such a URL.
	URLFile string `toml:"url_file,omitempty" kind:"path" file:"some"`

	Host     string `toml:"host,omitempty"` // a name, an address, or the directory of a socket
	Port     int    `toml:"port,omitempty"` // 0 is 5432
	DB       string `toml:"db,omitempty"`   // the name of the database
	Username string `toml:"username,omitempty"`
	// PasswordFile holds the password and perhaps a line break.
	PasswordFile string `toml:"password_file,omitempty" kind:"path" file:"some"`
	// Password is better in a file. A dump does not show it.
	Password Hidden `toml:"password,omitempty" kind:"secret"`
	// SSLMode is one of libpq's; by default verify-full, except on a socket and
	// on loopback.
	SSLMode     string `toml:"sslmode,omitempty"`
	SSLRootCert string `toml:"sslrootcert,omitempty" kind:"path" file:"certificates"` // PEM; by default the system's
	SSLCert     string `toml:"sslcert,omitempty" kind:"path" file:"chain=sslkey"`     // PEM, of the broker as a client
	SSLKey      string `toml:"sslkey,omitempty" kind:"path" file:"some"`
	// InsecureTLS allows an sslmode that does not verify the server, also in a
	// URL.
	InsecureTLS bool `toml:"insecure_tls,omitempty"`
	// MaxConnections bounds those that read; one more writes. 0 is four for
	// each processor.
	MaxConnections int `toml:"max_connections,omitempty"`
}

// Hidden is a secret in the configuration itself. It prints as a placeholder.
type Hidden string

// Format writes a placeholder for every verb.
func (Hidden) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(not shown)")) }

// MarshalText refuses.
func (Hidden) MarshalText() ([]byte, error) { return nil, secret.ErrMarshal }

func defaultStorageBackend() StorageBackend { return StorageBackend{StorageType: StorageSQLite} }

// Kind returns StorageSQLite or StoragePostgres.
func (s StorageBackend) Kind() string {
	switch s.StorageType {
	case StoragePostgres, "Postgres":
		return StoragePostgres
	default:
		return StorageSQLite
	}
}

// Path of the SQLite file.
func (s StorageBackend) Path(stateDir string) string {
	return filepath.Join(cmp.Or(s.Backends.LocalFs.DirPath, stateDir), "kbs.db")
}

// DSN returns the data source name of the PostgreSQL server. It may hold the
// password.
func (p Postgres) DSN() (secret.Bytes, error) {
	if p.URL != "" {
		return secret.New([]byte(p.URL)), nil
	}
	if p.URLFile != "" {
		return readLine("storage_backend.backends.postgres.url_file", p.URLFile)
	}
	user := url.User(p.Username)
	switch {
	case p.PasswordFile != "":
		password, err := readLine("storage_backend.backends.postgres.password_file", p.PasswordFile)
		if err != nil {
			return secret.Bytes{}, err
		}
		user = url.UserPassword(p.Username, string(password.Reveal()))
	case p.Password != "":
		user = url.UserPassword(p.Username, string(p.Password))
	}
	u := url.URL{Scheme: "postgres", User: user, Path: "/" + p.DB}
	q := url.Values{}
	port := strconv.Itoa(cmp.Or(p.Port, 5432))
	if strings.HasPrefix(p.Host, "/") {
		q.Set("host", p.Host)
		q.Set("port", port)
	} else {
		u.Host = net.JoinHostPort(p.Host, port)
	}
	for name, value := range map[string]string{"sslmode": p.SSLMode, "sslrootcert": p.SSLRootCert, "sslcert": p.SSLCert, "sslkey": p.SSLKey} {
		if value != "" {
			q.Set(name, value)
		}
	}
	u.RawQuery = q.Encode()
	return secret.New([]byte(u.String())), nil
}

// maxLine bounds a file with one secret, in bytes.
const maxLine = 8 << 10

func readLine(key, path string) (secret.Bytes, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%s: %w", key, err)
	}
	line := bytes.TrimRight(raw, "\r\n")
	if len(line) == 0 || len(line) > maxLine || bytes.ContainsAny(line, "\r\n") {
		return secret.Bytes{}, fmt.Errorf("%s: %s must hold one line of at most %d bytes", key, path, maxLine)
	}
	return secret.New(line), nil
}

func (s StorageBackend) insecure() []string {
	if s.Kind() == StoragePostgres && s.Backends.Postgres.InsecureTLS {
		return []string{"storage_backend.backends.postgres.insecure_tls"}
	}
	return nil
}

// elsewhere explains the field's kinds that this broker does not have.
var elsewhere = map[string]string{
	"memory":    "would lose the audit log with the process; use sqlite",
	"localjson": "cannot change two records together; use sqlite",
	"redis":     "acknowledges what a crash may lose; use postgres",
}

func (s StorageBackend) validate(p *problems) {
	const key = "storage_backend.storage_type"
	switch s.StorageType {
	case StorageSQLite, "LocalFs", "local_fs":
	case StoragePostgres, "Postgres":
		s.Backends.Postgres.validate(p)
	default:
		if why, ok := elsewhere[strings.ToLower(strings.ReplaceAll(s.StorageType, "_", ""))]; ok {
			p.bad(key, "%s %s", s.StorageType, why)
			return
		}
		p.oneOf(key, s.StorageType, StorageSQLite, StoragePostgres)
	}
}

func (p Postgres) validate(wrong *problems) {
	const key = "storage_backend.backends.postgres."
	if p.URL == "" && p.URLFile == "" {
		for name, value := range map[string]string{"host": p.Host, "db": p.DB, "username": p.Username} {
			if value == "" {
				wrong.bad(key+name, "must not be empty where there is no url")
			}
		}
	}
	wrong.between(key+"port", p.Port, 0, 65535)
	wrong.between(key+"max_connections", p.MaxConnections, 0, 1000)
	if p.PasswordFile != "" && p.Password != "" {
		wrong.bad(key+"password", "and password_file exclude each other")
	}
	if (p.SSLCert == "") != (p.SSLKey == "") {
		wrong.bad(key+"sslcert", "and sslkey must be given together")
	}
	wrong.oneOf(key+"sslmode", p.SSLMode, "", "disable", "allow", "prefer", "require", "verify-ca", "verify-full")
}
