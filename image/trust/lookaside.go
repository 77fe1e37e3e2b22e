package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

const maxLookasideConfig = 256 << 10 // bytes of one registries.d file

// A Lookaside is where signatures lie that no registry keeps
// (containers-registries.d(5)). The zero value has none.
type Lookaside struct {
	Client *http.Client // for http and https; nil: nothing is reached there. See [NewLookasideClient]
	// InsecureHTTPHosts are the hosts that may be spoken to without TLS.
	InsecureHTTPHosts []string

	fallback string
	docker   map[string]string // by scope
}

// lookasideFile is one file of registries.d.
type lookasideFile struct {
	Default *lookasidePlace           `yaml:"default-docker"`
	Docker  map[string]lookasidePlace `yaml:"docker"`
}

type lookasidePlace struct {
	Lookaside        string `yaml:"lookaside"`
	LookasideStaging string `yaml:"lookaside-staging"`
	Sigstore         string `yaml:"sigstore"` // the older name
	SigstoreStaging  string `yaml:"sigstore-staging"`
	UseAttachments   bool   `yaml:"use-sigstore-attachments"`
}

func (p lookasidePlace) base() string {
	if p.Lookaside != "" {
		return p.Lookaside
	}
	return p.Sigstore
}

// ParseLookaside reads the files of a registries.d directory. Two that speak of
// the same scope are an error, as elsewhere.
func ParseLookaside(files ...[]byte) (*Lookaside, error) {
	l := &Lookaside{docker: map[string]string{}}
	for _, raw := range files {
		if err := l.add(raw); err != nil {
			return nil, fmt.Errorf("registries.d: %w", err)
		}
	}
	return l, nil
}

func (l *Lookaside) add(raw []byte) error {
	if len(raw) > maxLookasideConfig {
		return fmt.Errorf("%d bytes, at most %d are read", len(raw), maxLookasideConfig)
	}
	var f lookasideFile
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if f.Default != nil && f.Default.base() != "" {
		if l.fallback != "" {
			return errors.New("default-docker is there twice")
		}
		l.fallback = f.Default.base()
		if err := checkLookaside(l.fallback); err != nil {
			return err
		}
	}
	for scope, place := range f.Docker {
		if err := checkScope(scope); err != nil {
			return err
		}
		base := place.base()
		if base == "" {
			continue
		}
		if _, twice := l.docker[scope]; twice {
			return fmt.Errorf("scope %.80q is there twice", scope)
		}
		if err := checkLookaside(base); err != nil {
			return err
		}
		l.docker[scope] = base
	}
	return nil
}

func checkLookaside(base string) error {
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("lookaside: %w", err)
	}
	local := u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path)
	remote := (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
	if !local && !remote || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("lookaside %.200q: want file:///DIR, https://HOST/PATH or http://HOST/PATH", base)
	}
	return nil
}

// NewLookasideClient returns a client for lookaside servers over what reaches
// registries ([registry.Client.Transport]): their proxies, CAs and client
// certificates. Redirects are not followed: none of the field's servers makes one.
func NewLookasideClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Timeout:       time.Minute,
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// place returns the base of the most specific scope of ref that has one.
func (l *Lookaside) place(ref registry.Reference) string {
	if l == nil {
		return ""
	}
	for _, s := range scopes(ref) {
		if base := l.docker[s]; base != "" {
			return base
		}
	}
	return l.fallback
}

// fetch reads signature-1, signature-2 and so on of a manifest, up to the first
// that is not there.
func (l *Lookaside) fetch(ctx context.Context, ref registry.Reference, d digest.Digest) ([][]byte, error) {
	base := l.place(ref)
	if base == "" {
		return nil, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + ref.Path + "@" + d.Algorithm().String() + "=" + d.Encoded()
	var sigs [][]byte
	for n := 1; ; n++ {
		raw, err := l.read(ctx, u.JoinPath(fmt.Sprintf("signature-%d", n)))
		if errors.Is(err, fs.ErrNotExist) {
			return sigs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("lookaside: %w", err)
		}
		if len(sigs) == maxSignatures {
			return nil, fmt.Errorf("lookaside: more than %d signatures", maxSignatures)
		}
		sigs = append(sigs, raw)
	}
}

// read returns one signature; fs.ErrNotExist says that there is none.
func (l *Lookaside) read(ctx context.Context, u *url.URL) ([]byte, error) {
	var body io.ReadCloser
	if u.Scheme == "file" {
		f, err := os.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for its writer
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			_ = f.Close()
			return nil, fmt.Errorf("%s is not a file", u.Path)
		}
		body = f
	} else {
		var err error
		if body, err = l.get(ctx, u); err != nil {
			return nil, err
		}
	}
	defer func() { _ = body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(body, maxSigned+1))
	if err == nil && len(raw) > maxSigned {
		err = fmt.Errorf("%s has more than %d bytes", u.Redacted(), maxSigned)
	}
	return raw, err
}

func (l *Lookaside) get(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	if l.Client == nil {
		return nil, fmt.Errorf("nothing can reach %s", u.Redacted())
	}
	if u.Scheme != "https" && !slices.Contains(l.InsecureHTTPHosts, u.Host) {
		return nil, fmt.Errorf("plain HTTP to %s is not allowed", u.Host)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), fs.ErrNotExist)
	}
	return nil, fmt.Errorf("%s answered %s", u.Redacted(), resp.Status)
}
