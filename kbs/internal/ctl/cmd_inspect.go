package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/ship"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

func (c *cli) imageInspectCommand() *cobra.Command {
	var reg registryFlags
	var aside lookasideFlags
	cmd := &cobra.Command{
		Use:   "inspect REF",
		Short: "Show an image's layers, their keys, and its signatures",
		Long: `Show what an image says of itself: layers, the keys that open them, and
signatures, also among its referrers. Nothing of it has been verified; image
verify does that.`,
		Example: "  kbsctl image inspect reg.example/app:1-enc",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.registry(reg)
			if err != nil {
				return err
			}
			where, err := aside.read(cfg)
			if err != nil {
				return err
			}
			in, err := ship.Inspect(cmd.Context(), args[0], cfg, where)
			if err != nil {
				return doing(imageError(err), "inspect %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(in)
			}
			return c.showInspection(in)
		},
	}
	reg.add(cmd)
	aside.add(cmd)
	return cmd
}

func (c *cli) showInspection(in *ship.Inspection) error {
	s := &sheet{w: c.stdio.Out}
	s.line("image", in.Reference)
	s.line("digest", in.Digest)
	s.line("index", in.Index)
	s.line("platform", in.Platform)
	s.line("command", strings.Join(append(append([]string{}, in.Config.Entrypoint...), in.Config.Cmd...), " "))
	s.line("user", in.Config.User)
	for i, l := range in.Layers {
		label := ""
		if i == 0 {
			label = "layers"
		}
		s.line(label, layerText(l))
	}
	if len(in.Signatures) == 0 {
		s.line("signatures", " none")
	}
	for _, sig := range in.Signatures {
		text := fmt.Sprintf("%s of %s as %s, by key %s (not verified)", sig.Form, sig.Digest, firstOf(sig.Name, "no name"), firstOf(sig.KeyHint, "unknown"))
		if sig.Problem != "" {
			text = "unreadable: " + sig.Problem
		}
		s.line("signature", text)
	}
	return s.err
}

func layerText(l ship.LayerInfo) string {
	text := fmt.Sprintf("%s  %d bytes", l.Digest, l.Size)
	switch {
	case l.Problem != "":
		return text + "  unreadable: " + l.Problem
	case l.Encrypted:
		return text + "  encrypted for " + strings.Join(slices.Concat(l.Keys, l.Beside), ", ")
	}
	return text + "  plain"
}

func (c *cli) imageVerifyCommand() *cobra.Command {
	var reg registryFlags
	var aside lookasideFlags
	var policy string
	var keys map[string]string
	cmd := &cobra.Command{
		Use:   "verify REF --policy FILE",
		Short: "Would the image policy let this image run?",
		Long: `Judge an image by an image policy (containers-policy.json) exactly as a guest
does. The exit code is 2 if the policy refuses. A policy that names a key at the
broker needs to be told where its public part is on this machine: --key.`,
		Example: `  kbsctl image verify reg.example/app:1-enc --policy policy.json
  kbsctl image verify reg.example/app:1-enc --policy policy.json \
      --key kbs:///prod/keys/release=release.pub`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.registry(reg)
			if err != nil {
				return err
			}
			where, err := aside.read(cfg)
			if err != nil {
				return err
			}
			verdict, err := judge(cmd.Context(), args[0], policy, keys, cfg, where)
			if err != nil {
				return doing(imageError(err), "verify %s", args[0])
			}
			if c.flags.output != "table" {
				return c.printData(verdict)
			}
			s := &sheet{w: c.stdio.Out}
			s.line("image", verdict.Reference)
			s.line("digest", verdict.Digest)
			s.line("scope", verdict.Scope)
			s.line("signers", strings.Join(verdict.Signers, "\n"))
			if verdict.Waived {
				s.line("verdict", "accepted WITHOUT any signature: the policy asks for none")
			} else {
				s.line("verdict", "accepted")
			}
			return s.err
		},
	}
	cmd.Flags().StringVar(&policy, "policy", "", "image policy `file`")
	cmd.Flags().StringToStringVar(&keys, "key", nil, "`keyPath=file`: where the key that the policy calls keyPath is")
	_ = cmd.MarkFlagRequired("policy")
	reg.add(cmd)
	aside.add(cmd)
	return cmd
}

// errNoLayout says why a layout cannot be judged.
var errNoLayout = errors.New("an image policy is about registry names; an OCI layout has none")

// judge does what a guest does before it pulls an image.
func judge(ctx context.Context, name, policyFile string, keys map[string]string, cfg registry.Config, aside *trust.Lookaside) (trust.Verdict, error) {
	raw, err := readFile(policyFile, maxConfig)
	if err != nil {
		return trust.Verdict{}, usagef("%w", err)
	}
	policy, err := trust.ParsePolicy(raw)
	if err != nil {
		return trust.Verdict{}, usagef("%s: %w", policyFile, err)
	}
	if _, _, ok := registry.ParseLayout(name); ok {
		return trust.Verdict{}, usagef("%w", errNoLayout)
	}
	ref, err := registry.ParseReference(name)
	if err != nil {
		return trust.Verdict{}, usagef("%w", err)
	}
	client, err := registry.NewClient(cfg)
	if err != nil {
		return trust.Verdict{}, err
	}
	repo, err := client.Repository(ref)
	if err != nil {
		return trust.Verdict{}, err
	}
	found, err := registry.Resolve(ctx, repo, ref.Version(), registry.Native())
	if err != nil {
		return trust.Verdict{}, err
	}
	return policy.Evaluate(ctx,
		trust.Subject{Reference: ref, Root: found.Root.Digest, Manifest: found.Manifest.Digest},
		trust.Evidence{Signatures: repo, Keys: func(_ context.Context, path string) ([]byte, error) {
			return publicKey(path, keys)
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
	b, err := readFile(file, maxConfig)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return b, nil
}
