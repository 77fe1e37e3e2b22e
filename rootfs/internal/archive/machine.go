package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Machine is what apt is configured with on this machine, and the lists that
// it fetched last. Nothing here is configured a second time: mirrors, proxies and
// suites are the machine's.
type Machine struct {
	Keys *Keyring
	Now  func() time.Time
	// Warn tells of an archive that is left out.
	Warn func(error)
}

// aptHelper knows every compression that apt keeps its lists in.
const aptHelper = "/usr/lib/apt/apt-helper"

// list is one Packages file that apt has.
type list struct {
	file     string // where it is
	name     string // in the Release file
	base     string // of the archive's packages
	release  string // where the InRelease file is
	describe string
}

// Index reads apt's lists. An archive that is not signed by the keyring, such
// as another vendor's, is left out.
func (m Machine) Index(ctx context.Context, architecture string) (*Index, error) {
	lists, err := aptLists(ctx, architecture)
	if err != nil {
		return nil, err
	}
	x := NewIndex()
	read := 0
	for _, l := range lists {
		switch err := m.add(ctx, x, l); {
		case errors.Is(err, ErrUnsigned), errors.Is(err, os.ErrNotExist):
			m.Warn(fmt.Errorf("%s is left out: %w", l.describe, err))
		case err != nil:
			return nil, fmt.Errorf("%s: %w", l.describe, err)
		default:
			read++
		}
	}
	if read == 0 {
		return nil, errors.New("apt has no lists of packages that the keyring signed: run apt-get update, or give another --keyring")
	}
	return x, nil
}

func (m Machine) add(ctx context.Context, x *Index, l list) error {
	raw, err := os.ReadFile(l.release)
	if err != nil {
		return err
	}
	release, err := ParseRelease(raw, m.Keys, m.Now())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, aptHelper, "cat-file", l.file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	content, err := release.Check(l.name, out)
	if err == nil {
		err = x.Read(content, l.base)
	}
	_, _ = io.Copy(io.Discard, out) // so that it ends
	if errWait := cmd.Wait(); err == nil && errWait != nil {
		err = fmt.Errorf("apt-helper: %w: %s", errWait, strings.TrimSpace(stderr.String()))
	}
	return err
}

// aptLists asks apt which lists it has.
func aptLists(ctx context.Context, architecture string) ([]list, error) {
	if _, err := os.Stat(aptHelper); err != nil {
		return nil, fmt.Errorf("apt is not installed here, whose configuration tells the archives: %w", err)
	}
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets", "Created-By: Packages")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	var out []list
	err = paragraphs(bytes.NewReader(raw), func(fields map[string]string) error {
		if fields["Architecture"] != architecture && fields["Architecture"] != "all" {
			return nil
		}
		l := list{file: fields["Filename"], name: fields["MetaKey"], base: fields["Repo-URI"], describe: fields["Description"]}
		// apt names a list by its address, with the path in the archive at the end.
		i := strings.LastIndex(l.file, "_"+strings.ReplaceAll(l.name, "/", "_"))
		if !filepath.IsAbs(l.file) || l.name == "" || i < 0 {
			return fmt.Errorf("%w: apt's list %.100q", ErrIndex, l.file)
		}
		l.release = l.file[:i] + "_InRelease"
		out = append(out, l)
		return nil
	})
	return out, err
}
