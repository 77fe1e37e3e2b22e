package ctl

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/progress"
	"github.com/vouchsafe-cc/vouchsafe/image/pull"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

const pullLong = `Pull an image as a guest does: the image policy judges it first, then every layer
is fetched, decrypted, and held against digest, HMAC and diffID.

To a directory DIR, which is absent or empty, it is unpacked with owners, devices,
attributes and deletions as a container would see them; DIR appears when all of that
held, or not at all. Without root this runs in a user namespace, and files belong to
you alone: owners, set-user-ID bits, capabilities and devices are left out, which is
said. To oci:DIR[:TAG], an OCI layout, nothing is unpacked and no root is needed:
encrypted layers are decrypted if something is given that opens them, and copied as
they are otherwise.

What was interrupted goes on with the same command: layers that were there are kept,
in .DIR.pull beside DIR until the machine is started anew, or in the layout.

Nothing is pulled without a policy. What is encrypted is opened with --with-key or
--with-kek, or inside a guest with --with-agent: the broker gives keys to attested
guests alone, never to an administrator.`

// pulling is one `image pull`.
type pulling struct {
	ref, to  string
	judging  judging
	with     openFlags
	parallel int
	progress progressFlags
}

func (c *cli) imagePullCommand() *cobra.Command {
	var p pulling
	cmd := &cobra.Command{
		Use:     "pull REF (DIR | oci:DIR[:TAG]) --policy FILE",
		Aliases: []string{"unpack"},
		Short:   "Verify, decrypt and unpack an image to a directory, or to an OCI layout",
		Long:    pullLong,
		Example: `  kbsctl image pull reg.example/app:1 rootfs --policy policy.json
  kbsctl image pull reg.example/app:1-enc oci:plain:1 --policy policy.json --with-key owner.key
  kbsctl image pull reg.example/app:1-enc rootfs --policy policy.json --key kbs:///prod/keys/release=release.pub \
      --with-key owner.key`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.ref, p.to = args[0], args[1]
			if p.judging.policy == "" {
				return usagef("which images may be pulled?").
					hint(`--policy FILE with an image policy; {"default":[{"type":"insecureAcceptAnything"}],"transports":{}} takes any image, signed or not`)
			}
			if _, _, layout := registry.ParseLayout(p.ref); layout {
				return usagef("%w", errNoLayout)
			}
			if dir, tag, layout := registry.ParseLayout(p.to); layout {
				return c.pullLayout(cmd.Context(), p, dir, tag)
			}
			if os.Geteuid() != 0 {
				return c.asOwnRoot(cmd.Context())
			}
			return c.pullDirectory(cmd.Context(), p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.judging.policy, "policy", "", "image policy `FILE` (containers-policy.json)")
	f.IntVar(&p.parallel, "parallel", 0, "`NUMBER` of layers at a time (default: 3)")
	p.judging.add(cmd)
	p.with.add(cmd)
	p.progress.add(cmd)
	return cmd
}

// pulled is what came of it.
type pulled struct {
	Reference string              `json:"reference"`
	Digest    string              `json:"digest"` // of the platform's manifest
	Directory string              `json:"directory,omitempty"`
	Layout    string              `json:"layout,omitempty"`
	Written   string              `json:"written,omitempty"` // digest in the layout
	Config    ocispec.ImageConfig `json:"config"`
	Verdict   trust.Verdict       `json:"verdict"`
}

func (c *cli) showPulled(done pulled) error {
	if c.flags.output != "table" {
		return c.printData(done)
	}
	if err := c.showVerdict(done.Verdict); err != nil {
		return err
	}
	s := &sheet{w: c.stdio.Out}
	s.line("unpacked", done.Directory)
	s.line("layout", done.Layout)
	s.line("digest", done.Written)
	return s.err
}

// freeDirectory refuses, before anything is fetched, a directory that could not
// be written.
func freeDirectory(name string) (string, error) {
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
	return dir, nil
}

// pullConfig is that of a guest, with the keys that are at hand.
func (c *cli) pullConfig(ctx context.Context, p pulling) (config pull.Config, wipe func(), err error) {
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
	chain, wipe, err := p.with.open(ctx, c)
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
