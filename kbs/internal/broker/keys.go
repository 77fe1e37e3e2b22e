package broker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/admin"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxFile limits a key, certificate or root bundle, in bytes.
const maxFile = 1 << 20

// AdminTokenPath is where the first owner's token is written.
func AdminTokenPath(dir string) string { return filepath.Join(dir, "admin", "token") }

// AdminTokenEnds is when that token ends, or ended; the beginning of time where
// there is none.
func AdminTokenEnds(dir string) time.Time {
	text, err := readKey(AdminTokenPath(dir))
	if err != nil {
		return time.Time{}
	}
	return admin.Ends(text)
}

func adminKeyPath(dir string) string    { return filepath.Join(dir, "keys", "admin.pem") }
func adminPublicPath(dir string) string { return filepath.Join(dir, "keys", "admin.pub") }

// IssueAdminToken makes an admin token for all tenants; see [IssueToken].
func IssueAdminToken(dir, subject string, role admin.Role, lifetime time.Duration, now time.Time) (secret.Bytes, error) {
	return IssueToken(dir, admin.Token{Grant: admin.Grant{Role: role}, Subject: subject, Lifetime: lifetime}, now)
}

// IssueToken makes an admin token with the key of a state directory. A broker
// need not be running, and need not be told.
func IssueToken(dir string, t admin.Token, now time.Time) (secret.Bytes, error) {
	text, err := readKey(adminKeyPath(dir))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("admin key: %w", err)
	}
	key, err := admin.ParsePrivateKey(text)
	if err != nil {
		return secret.Bytes{}, err
	}
	return admin.Issue(key, t, now)
}

// firstAdmin makes the admin key, an owner's token and, last, the public key:
// a start that was cut short begins again.
func firstAdmin(dir string, lifetime time.Duration, now time.Time) (pub []byte, err error) {
	private, err := loadOrCreate(adminKeyPath(dir), admin.GenerateKey)
	if err != nil {
		return nil, fmt.Errorf("admin key: %w", err)
	}
	key, err := admin.ParsePrivateKey(private)
	if err != nil {
		return nil, err
	}
	text, err := IssueAdminToken(dir, "bootstrap", admin.Owner, lifetime, now)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(AdminTokenPath(dir), append(text.Reveal(), '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	if pub, err = admin.MarshalPublicKey(key); err != nil {
		return nil, err
	}
	if err := replaceFile(adminPublicPath(dir), pub, 0o644); err != nil {
		return nil, fmt.Errorf("admin key: %w", err)
	}
	return pub, nil
}

// loadOrCreate reads a key file, making it if it is missing.
func loadOrCreate(path string, create func() (secret.Bytes, error)) (secret.Bytes, error) {
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = create(); err != nil {
		return secret.Bytes{}, err
	}
	if err := replaceFile(path, key.Reveal(), 0o600); err != nil {
		return secret.Bytes{}, err
	}
	return key, nil
}

// readKey refuses a key that others than its owner may read.
func readKey(path string) (secret.Bytes, error) {
	info, err := os.Stat(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%s has mode %04o: only its owner may have access", path, info.Mode().Perm())
	}
	raw, err := readFile(path)
	return secret.New(raw), err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return raw, err
}

// replaceFile writes a whole file or nothing, and has it on disk when it
// returns.
func replaceFile(path string, raw []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(raw); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
