package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// maxFile limits a key or certificate file, in bytes.
const maxFile = 64 << 10

// Signer names the files of a key that is not the broker's own making
// (kbs-protocol 10). The files are looked at every few seconds; a new key signs
// as soon as it is published.
type Signer struct {
	KeyPath  string // PEM, SEC 1 or PKCS #8, on P-256
	CertPath string // PEM, leaf first; "" if there is no certificate
	CertURL  string // shown as x5u
}

// fileKey is the key of a signer as it was last read; the owner of Keys.mu
// changes it.
type fileKey struct {
	key  *key
	seen [sha256.Size]byte // of the files' contents
}

// publishFile reads the signer's files and publishes their key. Files that
// were good once and no longer are do not stop the broker: the key before goes
// on signing, and the log says why.
func (k *Keys) publishFile(ctx context.Context) error {
	if k.cfg.Signer == nil {
		return nil
	}
	read, seen, err := k.cfg.Signer.read(k.file.seen)
	if err != nil {
		if k.file.key == nil {
			return err
		}
		k.cfg.Logger.WarnContext(ctx, "the token signer's files are not usable", slog.Any("error", err))
	}
	if read == nil {
		read, seen = k.file.key, k.file.seen
	}
	if err := k.lease(ctx, read); err != nil {
		return err
	}
	k.file = fileKey{key: read, seen: seen}
	return nil
}

// read returns nil if the files are as they were.
func (s *Signer) read(before [sha256.Size]byte) (*key, [sha256.Size]byte, error) {
	text, err := readFile(s.KeyPath)
	if err != nil {
		return nil, before, fmt.Errorf("token signer: %w", err)
	}
	private := secret.New(text)
	defer private.Destroy()
	var certs []byte
	if s.CertPath != "" {
		if certs, err = readFile(s.CertPath); err != nil {
			return nil, before, fmt.Errorf("token signer: %w", err)
		}
	}
	h := sha256.New()
	_, _ = h.Write(private.Reveal())
	_, _ = h.Write(certs)
	seen := [sha256.Size]byte(h.Sum(nil))
	if seen == before {
		return nil, before, nil
	}
	k, err := parseKey(private, s.CertURL)
	if err != nil {
		return nil, before, err
	}
	if k.private == nil {
		return nil, before, errors.New("token signer: the file has no private key")
	}
	if s.CertPath != "" {
		chain, err := parseCertificates(certs)
		if err != nil {
			return nil, before, fmt.Errorf("token signer: %w", err)
		}
		if k, err = newKey(k.public, k.private, chain, s.CertURL); err != nil {
			return nil, before, err
		}
	}
	return k, seen, nil
}

// leaseFor is how long a signer's key is accepted after its last lease: its
// tokens' life, and long enough that leases are rare.
func (k *Keys) leaseFor() time.Duration { return k.cfg.Lifetime + grace + time.Hour }

// lease publishes the public half of a signer's key, or goes on publishing it.
// Nobody has to retire a key whose file is gone: the lease ends by itself.
func (k *Keys) lease(ctx context.Context, of *key) error {
	now := k.cfg.Now().UTC()
	if s := k.snap.Load(); s != nil && s.leased(of.id, now.Add(k.cfg.Lifetime+grace)) {
		return nil
	}
	half, err := newKey(of.public, nil, of.chain, of.url)
	if err != nil {
		return err
	}
	if err := k.seal(ctx, half); err != nil {
		return err
	}
	var gone []string
	err = k.change(ctx, "kbs", func(x *index) (api.AuditEntry, error) {
		gone = nil
		until := now.Add(k.leaseFor())
		for i := range x.Keys {
			if x.Keys[i].ID == of.id && x.Keys[i].State != StateExternal {
				return api.AuditEntry{}, fmt.Errorf("token signer: key %s is one of the broker's own: %w", of.id, store.ErrConflict)
			}
			if x.Keys[i].ID == of.id {
				x.Keys[i].Until = until
				return api.AuditEntry{}, nil
			}
		}
		gone = x.expire(now)
		x.Keys = append(x.Keys, indexed{ID: of.id, State: StateExternal, Since: now, Until: until})
		return api.AuditEntry{Kind: api.AuditTokenKeyPublish, Object: "token-key/" + of.id}, nil
	})
	if err == nil {
		k.forget(ctx, gone)
	}
	return err
}

func (s *snapshot) leased(id string, until time.Time) bool {
	for _, e := range s.index.Keys {
		if e.ID == id {
			return e.State == StateExternal && until.Before(e.Until)
		}
	}
	return false
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
