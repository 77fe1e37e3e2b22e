package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// credentialTimeout bounds how long the start waits for all of them.
const credentialTimeout = 50 * time.Second

// fetchCredentials writes what the configuration wants in files before anything
// is served, as the field's data hub does; a file that cannot be had ends the
// start (guest-protocol 8.3). dir stands for [settings.CredentialDir].
func fetchCredentials(ctx context.Context, all []settings.Credential, dir string, fetch func(ctx context.Context, uri string) (secret.Bytes, error)) (err error) {
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, c := range all {
		if err := fetchCredential(ctx, c, root, fetch); err != nil {
			return fmt.Errorf("credential %s: %w", c.Path, err)
		}
	}
	return nil
}

func fetchCredential(ctx context.Context, c settings.Credential, root *os.Root, fetch func(ctx context.Context, uri string) (secret.Bytes, error)) error {
	value, err := fetch(ctx, c.ResourceURI)
	if err != nil {
		return err
	}
	defer value.Destroy()
	name := strings.TrimPrefix(c.Path, settings.CredentialDir+"/")
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	tmp := name + ".new"
	if err := root.RemoveAll(tmp); err != nil {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value.Reveal())
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, root.RemoveAll(tmp))
	}
	return nil
}
