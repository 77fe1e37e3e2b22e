package ctl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/image/progress"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
)

// pullDirectory brings the image into a store beside the directory, and moves it
// there when all of it held.
func (c *cli) pullDirectory(ctx context.Context, p pulling) error {
	dir, err := freeDirectory(p.to)
	if err != nil {
		return err
	}
	alone, err := aloneInNamespace()
	if err != nil {
		return usagef("%w", err)
	}
	options := []store.Option{store.Keeping()}
	if alone {
		options = append(options, store.WithoutOwners())
		c.warnf("WARNING: without root, all files of %s will be yours: owners, set-user-ID bits, capabilities and devices are left out", p.to)
	}
	beside := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".pull")
	s, err := store.Open(beside, options...)
	if err != nil {
		return usagef("%w", err)
	}
	done, err := c.pullInto(ctx, p, s, dir)
	begun := len(s.Layers()) > 0
	err = errors.Join(err, s.Close())
	if begun && goesOn(err) {
		c.warnf("what has come is kept in %s: the same command goes on from there", beside)
		return err
	}
	if err = errors.Join(err, os.RemoveAll(beside)); err != nil {
		return err
	}
	return c.showPulled(done)
}

// goesOn says whether a second attempt may do better.
func goesOn(err error) bool {
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && f.Code == fault.ImageUnavailable
}

func (c *cli) pullInto(ctx context.Context, p pulling, s *store.Store, dir string) (done pulled, err error) {
	config, wipe, err := c.pullConfig(ctx, p)
	defer wipe()
	if err != nil {
		return done, err
	}
	config.Store, config.Keep = s, true
	show := c.display(p.progress)
	defer show.Close()
	config.Progress = pullProgress(show)
	puller, err := pull.New(config)
	if err != nil {
		return done, err
	}
	image, err := puller.Pull(ctx, p.ref)
	if err != nil {
		return done, doing(err, "pull %s", p.ref)
	}
	defer func() { err = errors.Join(err, image.Release()) }()
	if err := image.MoveTo(ctx, dir); err != nil {
		return done, doing(err, "unpack %s", p.ref)
	}
	return pulled{Reference: image.Reference, Digest: image.Digest, Directory: dir, Config: image.Config, Verdict: image.Verdict}, nil
}

// pullLayout copies the image to an OCI layout, which is made if need be.
func (c *cli) pullLayout(ctx context.Context, p pulling, dir, tag string) error {
	config, wipe, err := c.pullConfig(ctx, p)
	defer wipe()
	if err != nil {
		return err
	}
	show := c.display(p.progress)
	defer show.Close()
	config.Progress = pullProgress(show)
	copier, err := pull.NewCopier(config)
	if err != nil {
		return err
	}
	var unusable error // the layout
	done, err := copier.Copy(ctx, p.ref, tag, func() (pull.Target, error) {
		l, err := registry.CreateLayout(dir)
		unusable = err
		return l, err
	})
	if unusable != nil {
		return usagef("%w", unusable)
	}
	if err != nil {
		return doing(err, "pull %s", p.ref)
	}
	show.Close()
	if done.Encrypted > 0 {
		c.warnf("%d layers stay encrypted, and nothing but their digests was verified: --with-key FILE opens them", done.Encrypted)
	}
	return c.showPulled(pulled{
		Reference: done.Reference, Digest: done.Digest, Layout: p.to, Written: done.Written, Config: done.Config, Verdict: done.Verdict,
	})
}

// pullProgress shows the events of a pull.
func pullProgress(show *progress.Display) func(pull.Event) {
	all := new(atomic.Int64)
	return func(e pull.Event) {
		if e.Phase == pull.PhaseAccepted {
			all.Store(e.Total)
		}
		if u, ok := pullUpdate(e, all.Load()); ok {
			show.Update(u)
		}
	}
}
