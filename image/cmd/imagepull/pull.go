package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"

	"github.com/spf13/pflag"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// puller is the command line of `imagepull pull`.
type puller struct {
	store, ref, kek, mount, profile string
	parallel                        int
	libraryGzip                     bool
	window                          int64
}

func (p *puller) flags(f *pflag.FlagSet) {
	f.StringVar(&p.store, "store", "", "directory of the image store")
	f.StringVar(&p.ref, "ref", "", "image")
	f.StringVar(&p.kek, "kek", "", "file with the key that wraps the layers' keys")
	f.StringVar(&p.mount, "mount", "", "where to mount the image, until the input ends")
	f.StringVar(&p.profile, "profile", "", "write a CPU profile of the pull to this file")
	f.IntVar(&p.parallel, "parallel", 0, "layers at a time; 0: as the agent does")
	f.Int64Var(&p.window, "window", 0, "see registry.Config")
	f.BoolVar(&p.libraryGzip, "library-gzip", false, "see pull.Config")
}

// run pulls, prints "pulled", mounts, prints "mounted", and takes everything
// back when the input ends.
func (p *puller) run(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	st, err := store.Open(p.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	img, err := p.pull(ctx, st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, img.Release()) }()
	fmt.Fprintln(out, "pulled")
	if p.mount == "" {
		return nil
	}
	if err := img.Mount(ctx, p.mount); err != nil {
		return err
	}
	fmt.Fprintln(out, "mounted")
	_, err = io.Copy(io.Discard, in)
	return err
}

func (p *puller) pull(ctx context.Context, st *store.Store) (*pull.Image, error) {
	ref, err := registry.ParseReference(p.ref)
	if err != nil {
		return nil, err
	}
	config := pull.Config{
		Store: st, Registry: registry.Config{InsecureHTTPHosts: []string{ref.Host}, Window: p.window}, Parallel: p.parallel, LibraryGzip: p.libraryGzip,
		Policy: func(context.Context) (*trust.Policy, error) {
			return trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{}}`))
		},
	}
	if p.kek != "" {
		raw, err := os.ReadFile(p.kek)
		if err != nil {
			return nil, err
		}
		kek := secret.New(raw)
		config.Unwrapper = crypt.KEKs(func(context.Context, string) (secret.Bytes, error) { return kek, nil })
	}
	client, err := pull.New(config)
	if err != nil {
		return nil, err
	}
	if p.profile != "" {
		f, err := os.Create(p.profile)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	return client.Pull(ctx, p.ref)
}
