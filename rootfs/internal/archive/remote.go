package archive

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/given"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/unxz"
)

// A Suite is a part of an archive that a recipe names, in place of what apt is
// configured with.
type Suite struct {
	URL        string // above dists/
	Name       string // below dists/
	Components []string
	Keys       *Keyring
	// Expired says that a list may be older than it says of itself: those of an
	// archive of snapshots are. Who answers for the archive can then bring back any
	// list that it ever signed.
	Expired bool
}

// Suites reads the lists of suites from their archives.
type Suites struct {
	Client *http.Client
	Now    func() time.Time
}

// maxPackages bounds a list of packages when it is decompressed, in bytes.
const maxPackages = 1 << 30

// Index reads all of the suites. Unlike apt's own, none may be left out.
func (s Suites) Index(ctx context.Context, architecture string, suites []Suite) (*Index, error) {
	x := NewIndex()
	for _, suite := range suites {
		if err := s.add(ctx, x, architecture, suite); err != nil {
			return nil, fmt.Errorf("suite %s of %s: %w", suite.Name, suite.URL, err)
		}
	}
	return x, nil
}

func (s Suites) add(ctx context.Context, x *Index, architecture string, suite Suite) error {
	base := strings.TrimSuffix(suite.URL, "/") + "/dists/" + suite.Name + "/"
	body, err := Get(ctx, s.Client, base+"InRelease")
	if err != nil {
		return err
	}
	raw, err := given.Reader(body, "InRelease", maxRelease)
	if err := errors.Join(err, body.Close()); err != nil {
		return err
	}
	now := s.Now()
	if suite.Expired {
		now = time.Time{}
	}
	release, err := ParseRelease(raw, suite.Keys, now)
	if err != nil {
		return err
	}
	if release.Suite != suite.Name && release.Codename != suite.Name {
		return fmt.Errorf("%w: the list is of suite %.40q (%.40q), and another was asked for", ErrIndex, release.Suite, release.Codename)
	}
	for _, component := range suite.Components {
		if err := s.component(ctx, x, release, suite, base, component+"/binary-"+architecture); err != nil {
			return fmt.Errorf("component %s: %w", component, err)
		}
	}
	return nil
}

// component reads one list of packages, in the first form that the archive has.
func (s Suites) component(ctx context.Context, x *Index, release *Release, suite Suite, base, dir string) error {
	for _, form := range []struct {
		suffix string
		read   func(io.Reader) (io.Reader, error)
	}{
		{".xz", unxz.NewReader},
		{".gz", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"", func(r io.Reader) (io.Reader, error) { return r, nil }},
	} {
		name := dir + "/Packages" + form.suffix
		if !release.Lists(name) {
			continue
		}
		body, err := Get(ctx, s.Client, base+name)
		if err != nil {
			return err
		}
		err = readList(x, release, name, body, form.read, suite.URL)
		return errors.Join(err, body.Close())
	}
	return fmt.Errorf("%w: the archive has no list of its packages for this architecture", ErrIndex)
}

// readList reads a list whose digest is checked as it is downloaded, before it is
// decompressed.
func readList(x *Index, release *Release, name string, body io.Reader, decompress func(io.Reader) (io.Reader, error), base string) error {
	checked, err := release.Check(name, body)
	if err != nil {
		return err
	}
	// Nothing that is not signed reaches the decompressor.
	f, err := os.CreateTemp("", "packages-*")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	if _, err := io.Copy(f, checked); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	content, err := decompress(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	bounded := &io.LimitedReader{R: content, N: maxPackages + 1}
	err = x.Read(bounded, base)
	if bounded.N == 0 {
		err = fmt.Errorf("%w: a list of more than %d bytes", ErrIndex, maxPackages)
	}
	return err
}
