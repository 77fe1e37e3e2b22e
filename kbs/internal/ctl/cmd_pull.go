package ctl

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/progress"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/store"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

const pullLong = `Pull an image as a guest does and unpack it to DIR: the image policy judges it
first, then every layer is fetched, decrypted, held against digest, HMAC and
diffID, and unpacked, with owners, devices, attributes and deletions as a
container would see them. DIR must be absent or empty; it appears when all of
that held, or not at all. This needs root.

Nothing is pulled without a policy. What is encrypted is opened with --with-key or
--with-kek, or inside a guest with --with-agent: the broker gives keys to attested
guests alone, never to an administrator.`

// pulling is one `image pull`.
type pulling struct {
	ref, dir string
	judging  judging
	with     openFlags
	parallel int
	progress progressFlags
}

func (c *cli) imagePullCommand() *cobra.Command {
	var p pulling
	cmd := &cobra.Command{
		Use:     "pull REF DIR --policy FILE",
		Aliases: []string{"unpack"},
		Short:   "Verify, decrypt and unpack an image to a directory",
		Long:    pullLong,
		Example: `  kbsctl image pull reg.example/app:1 rootfs --policy policy.json
  kbsctl image pull reg.example/app:1-enc rootfs --policy policy.json --key kbs:///prod/keys/release=release.pub \
      --with-key owner.key`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.ref, p.dir = args[0], args[1]
			if p.judging.policy == "" {
				return usagef("which images may be pulled?").
					hint(`--policy FILE with an image policy; {"default":[{"type":"insecureAcceptAnything"}],"transports":{}} takes any image, signed or not`)
			}
			done, err := c.pull(cmd.Context(), p)
			if err != nil {
				return err
			}
			if c.flags.output != "table" {
				return c.printData(done)
			}
			if err := c.showVerdict(done.Verdict); err != nil {
				return err
			}
			s := &sheet{w: c.stdio.Out}
			s.line("unpacked", done.Directory)
			return s.err
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.judging.policy, "policy", "", "image policy `file` (containers-policy.json)")
	f.IntVar(&p.parallel, "parallel", 0, "how many `layers` at a time (default: 3)")
	p.judging.add(cmd)
	p.with.add(cmd)
	p.progress.add(cmd)
	return cmd
}

// pulled is what came of it.
type pulled struct {
	Reference string              `json:"reference"`
	Digest    string              `json:"digest"` // of the platform's manifest
	Directory string              `json:"directory"`
	Config    ocispec.ImageConfig `json:"config"`
	Verdict   trust.Verdict       `json:"verdict"`
}

// pull brings the image into a store beside the directory, and moves it there
// when all of it held.
func (c *cli) pull(ctx context.Context, p pulling) (done pulled, err error) {
	if _, _, layout := registry.ParseLayout(p.ref); layout {
		return done, usagef("%w", errNoLayout)
	}
	dir, err := freeDirectory(p.dir)
	if err != nil {
		return done, err
	}
	config, wipe, err := c.pullConfig(p)
	defer wipe()
	if err != nil {
		return done, err
	}
	beside, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".pull-")
	if err != nil {
		return done, usagef("%w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(beside)) }()
	if config.Store, err = store.Open(beside); err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, config.Store.Close()) }()
	show := c.display(p.progress)
	defer show.Close()
	var all atomic.Int64
	config.Progress = func(e pull.Event) {
		if e.Phase == pull.PhaseAccepted {
			all.Store(e.Total)
		}
		if u, ok := pullUpdate(e, all.Load()); ok {
			show.Update(u)
		}
	}
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

// freeDirectory refuses, before anything is fetched, a directory that could not
// be written.
func freeDirectory(name string) (string, error) {
	if strings.HasPrefix(name, "oci:") {
		return "", usagef("%s: an image is pulled to a directory", name).hint("skopeo copy --decryption-key FILE makes an OCI layout of an encrypted image")
	}
	dir, err := filepath.Abs(name)
	if err != nil {
		return "", usagef("%w", err)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return "", usagef("%s is not empty", name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", usagef("%w", err)
	}
	if os.Geteuid() != 0 {
		return "", usagef("to unpack an image with its owners and devices needs root").hint("image verify judges it without")
	}
	return dir, nil
}

// pullConfig is that of a guest, with the keys that are at hand.
func (c *cli) pullConfig(p pulling) (config pull.Config, wipe func(), err error) {
	wipe = func() {}
	raw, err := p.judging.text()
	if err != nil {
		return config, wipe, err
	}
	policy, err := trust.ParsePolicy(raw)
	if err != nil {
		return config, wipe, usagef("%s: %w", p.judging.policy, err)
	}
	if config.Registry, err = c.registry(p.judging.reg); err != nil {
		return config, wipe, err
	}
	aside, err := p.judging.aside.read(config.Registry)
	if err != nil {
		return config, wipe, err
	}
	if config.Platform, err = p.judging.platform.native(); err != nil {
		return config, wipe, err
	}
	chain, wipe, err := p.with.open()
	if err != nil {
		return config, wipe, err
	}
	if !p.with.empty() {
		config.Unwrapper = chain
	}
	config.Parallel = p.parallel
	config.Policy = func(context.Context) (*trust.Policy, error) { return policy, nil }
	config.Keys = func(_ context.Context, path string) ([]byte, error) { return publicKey(path, p.judging.keys) }
	config.Lookaside = func(context.Context) (*trust.Lookaside, error) { return aside, nil }
	return config, wipe, nil
}

// pullUpdate is what a person sees of the events of package pull: layers on
// their way.
func pullUpdate(e pull.Event, all int64) (progress.Update, bool) {
	u := progress.Update{
		Verb: "pull", Past: "pulled", Item: e.Layer, Items: e.Layers, Name: e.Digest.String(), Bytes: e.Bytes, Total: e.Total, All: all,
		Done: e.Phase == pull.PhaseCommitted,
	}
	return u, e.Layer >= 0 && (u.Done || e.Phase == pull.PhaseFetching)
}
