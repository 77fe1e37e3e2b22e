package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// judging is what an image is judged with.
type judging struct {
	reg      registryFlags
	aside    lookasideFlags
	platform platformFlag
	policy   string // file
	keys     map[string]string

	policyText []byte // instead of the file
	policyURI  string // where a guest will find it; not read here
}

func (j *judging) add(cmd *cobra.Command) {
	cmd.Flags().StringToStringVar(&j.keys, "key", nil, "`KEYPATH=FILE`: where the key that the image policy calls keyPath is on this machine (repeatable)")
	cmd.Flags().Lookup("key").DefValue = ""
	j.platform.add(cmd, "linux on this machine's architecture")
	j.reg.add(cmd)
	j.aside.add(cmd)
}

func (c *cli) imageVerifyCommand() *cobra.Command {
	var j judging
	cmd := &cobra.Command{
		Use:   "verify REF --policy FILE",
		Short: "Would the image policy let this image run?",
		Long: `Judge an image by an image policy (containers-policy.json) exactly as a guest
does, and print the verdict. No broker is asked. The exit code is 2 if the policy
refuses, and the reason says which keys it wants and what it found instead.

A policy that names a key at the broker needs to be told where its public part is
on this machine: --key.`,
		Example: `  kbsctl image verify reg.example/app:1-enc --policy policy.json
  kbsctl image verify reg.example/app:1-enc --policy policy.json \
      --key kbs:///prod/keys/release=release.pub`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.registry(j.reg)
			if err != nil {
				return err
			}
			at, err := j.find(cmd.Context(), args[0], cfg)
			if err != nil {
				return doing(imageError(err), "verify %s", args[0])
			}
			verdict, err := j.judge(cmd.Context(), at, cfg)
			if err != nil {
				return doing(imageError(err), "verify %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(verdict)
			}
			return c.showVerdict(verdict)
		},
	}
	cmd.Flags().StringVar(&j.policy, "policy", "", "image policy `FILE`")
	_ = cmd.MarkFlagRequired("policy")
	j.add(cmd)
	return cmd
}

func (c *cli) showVerdict(v trust.Verdict) error {
	s := &sheet{w: c.stdio.Out}
	s.line("image", v.Reference)
	s.line("digest", v.Digest)
	s.line("scope", v.Scope)
	s.line("signers", strings.Join(v.Signers, "\n"))
	for _, a := range v.Signatures {
		s.line("signature", fmt.Sprintf("%s (%s) of %s as %s, by %s", a.Form, a.Origin, a.Digest, firstOf(a.Identity, "no name"), a.Rule))
	}
	for _, q := range v.Quorums {
		if q.Of > 1 {
			s.line("quorum", fmt.Sprintf("%d of the %d that may sign are enough, and did", q.Needed, q.Of))
		}
	}
	for _, w := range v.Waivers {
		s.line("waived", fmt.Sprintf("%s, by %s", w.What, w.By))
	}
	if v.Waived {
		s.line("verdict", "accepted WITHOUT any signature: the policy asks for none")
	} else {
		s.line("verdict", "accepted")
	}
	return s.err
}

// errNoLayout says why a layout cannot be judged.
var errNoLayout = errors.New("an image policy is about registry names; an OCI layout has none")

// located is an image in its registry.
type located struct {
	ref   registry.Reference
	repo  *registry.Repository
	image *registry.Resolved
}

// find looks for the image as a guest does.
func (j *judging) find(ctx context.Context, name string, cfg registry.Config) (located, error) {
	var at located
	if _, _, ok := registry.ParseLayout(name); ok {
		return at, usagef("%w", errNoLayout)
	}
	p, err := j.platform.native()
	if err != nil {
		return at, err
	}
	if at.ref, err = registry.ParseReference(name); err != nil {
		return at, usagef("%w", err)
	}
	client, err := registry.NewClient(cfg)
	if err != nil {
		return at, err
	}
	if at.repo, err = client.Repository(at.ref); err != nil {
		return at, err
	}
	at.image, err = registry.Resolve(ctx, at.repo, at.ref.Version(), p)
	return at, err
}

// text returns the image policy, nil for none.
func (j *judging) text() ([]byte, error) {
	if j.policy == "" {
		return j.policyText, nil
	}
	raw, err := given.File(j.policy, maxConfig)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return raw, nil
}

// judge does what a guest does before it pulls an image.
func (j *judging) judge(ctx context.Context, at located, cfg registry.Config) (trust.Verdict, error) {
	raw, err := j.text()
	if err != nil {
		return trust.Verdict{}, err
	}
	policy, err := trust.ParsePolicy(raw)
	if err != nil {
		return trust.Verdict{}, usagef("%s: %w", firstOf(j.policy, "init-data"), err)
	}
	aside, err := j.aside.read(cfg)
	if err != nil {
		return trust.Verdict{}, err
	}
	return policy.Evaluate(ctx,
		trust.SubjectOf(at.ref, at.image),
		trust.Evidence{Signatures: at.repo, Keys: func(_ context.Context, path string) ([]byte, error) {
			return publicKey(path, j.keys)
		}, Lookaside: func(context.Context) (*trust.Lookaside, error) { return aside, nil }})
}

func publicKey(path string, keys map[string]string) ([]byte, error) {
	file, mapped := keys[path]
	if !mapped {
		if strings.HasPrefix(path, "kbs://") {
			return nil, usagef("the policy's key %s is at the broker, which gives it only to guests", path).
				hint("--key %s=FILE", path)
		}
		file = strings.TrimPrefix(path, "file://")
	}
	b, err := given.File(file, maxConfig)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return b, nil
}
