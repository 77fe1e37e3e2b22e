package ctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/policy"
)

const preflightLong = `Say, before a pod is started, whether its image would run: whether a guest would
accept the image, and whether the broker would give it the key. What fails is told
with the next step. The exit code is 0 if nothing failed, else that of the first
failure: 2 where a guest or the broker would refuse.

  image        it can be had from its registry
  init-data    --init-data is well formed, and no check is waived in it
  signature    the image policy accepts it: --image-policy, or the policy that
               stands in --init-data
  key          every encrypted layer has a key at the broker that is in force,
               not held back, not expired, and for this image
  policy keys  what the image policy names by kbs:/// is at the broker
  refvalues    the broker has reference values in force; with --refvalues (what
               measure predict writes), it has those of this guest
  evidence     the broker takes the evidence in --evidence, by its own verifiers,
               collateral and waivers, has not revoked what it shows, and finds its
               guest affirming; if not, which claim, rule and line it is about
  release      the policy of each key gives it to that guest, or to one whose
               token has the claims in --claims (guest-agent token prints one)

Evidence comes from such a guest (measure obtain --report-data HEX) or from a
simulator, and the broker judges it as if that guest had come: it releases nothing
for it, makes no token, and keeps a record of who asked. This wants the role
operator. Without it, --verdict takes what measure verify -o json said of the
evidence, with your collateral and your waivers, which need not be the broker's.

The image policy may be a file, or lie at the broker (kbs:///REPO/TYPE/TAG, also as
init-data names it): of what the broker keeps for guests, image policies alone are
shown to operators.

A check whose input was not given is told as open, never as passed.`

func (c *cli) preflightCommand() *cobra.Command {
	p := preflight{c: c}
	cmd := &cobra.Command{
		Use:   "preflight REF",
		Short: "Would a guest run this image, and get its key?",
		Long:  preflightLong,
		Example: `  kbsctl preflight reg.example/app:1-enc --image-policy policy.json --key kbs:///prod/keys/release=release.pub
  kbsctl preflight reg.example/app:1-enc --init-data initdata.toml --refvalues guest-1.4.yaml \
      --evidence snp=evidence.json --report-data 00ff`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.ref = args[0]
			if strings.HasPrefix(p.j.policy, "kbs://") {
				p.j.policy, p.j.policyURI = "", p.j.policy
			}
			return p.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.j.policy, "image-policy", "", "image policy `FILE` (containers-policy.json) that guests will have, or its URI at the broker")
	f.StringVar(&p.initData, "init-data", "", "init-data `FILE` that the guest will be launched with")
	f.StringArrayVar(&p.refvalues, "refvalues", nil, "`FILE` of RefValue documents: what the guest will measure (repeatable)")
	f.StringVar(&p.claims, "claims", "", "`FILE` with the claims (JSON) of a guest's token")
	f.StringArrayVar(&p.verdicts, "verdict", nil, "`FILE` with what measure verify -o json said of a guest's evidence (repeatable: the CPU's first, then devices')")
	f.StringVar(&p.attestation, "attestation-policy", policy.DefaultID, "`ID` of the broker's attestation policies that judge it, without class")
	f.StringArrayVar(&p.evidence, "evidence", nil, "`PLATFORM=FILE` with evidence of such a guest, for the broker to judge (repeatable: the CPU's first, then devices')")
	f.StringVar(&p.bound, "report-data", "", "`HEX` that the evidence is bound to")
	cmd.MarkFlagsRequiredTogether("evidence", "report-data")
	cmd.MarkFlagsMutuallyExclusive("claims", "verdict", "evidence")
	p.j.add(cmd)
	return cmd
}

// Results of a check.
const (
	checkOK     = "ok"
	checkFailed = "failed"
	checkOpen   = "open" // what it needs was not given, or what comes before it failed
)

// check is one thing that must hold before a pod can run.
type check struct {
	Name   string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
	Next   string `json:"next,omitempty"` // what to do about it
	exit   int
}

func passed(name, format string, args ...any) check {
	return check{Name: name, Result: checkOK, Detail: fmt.Sprintf(format, args...)}
}

func open(name, next, format string, args ...any) check {
	return check{Name: name, Result: checkOpen, Detail: fmt.Sprintf(format, args...), Next: next}
}

// refused is something that a guest or the broker would refuse.
func refused(name, next, format string, args ...any) check {
	return check{Name: name, Result: checkFailed, Detail: fmt.Sprintf(format, args...), Next: next, exit: fault.ExitRefused}
}

// broken is a check that ended in an error, with the error's own hint.
func broken(name, next string, err error) check {
	text := strings.TrimPrefix(strings.TrimSpace(renderError(err)), "kbsctl: ")
	text, _, _ = strings.Cut(text, "\n  hint  ")
	if h := hintFor(err); h != "" {
		next = h
	}
	return check{Name: name, Result: checkFailed, Detail: text, Next: next, exit: exitCode(err)}
}

// run makes all checks, whatever fails.
func (p *preflight) run(ctx context.Context) error {
	checks, err := p.all(ctx)
	if err != nil {
		return err
	}
	failed, left := 0, 0
	var exit int
	for _, k := range checks {
		switch k.Result {
		case checkFailed:
			if failed == 0 {
				exit = k.exit
			}
			failed++
		case checkOpen:
			left++
		}
	}
	if err := p.print(checks, failed, left); err != nil {
		return err
	}
	if failed > 0 {
		return &failure{err: errNotReady, exit: exit}
	}
	return nil
}

func (p *preflight) print(checks []check, failed, left int) error {
	if p.c.flags.output != "table" {
		return p.c.printData(map[string]any{"reference": p.ref, "ready": failed == 0 && left == 0, "checks": checks})
	}
	var b strings.Builder
	for _, k := range checks {
		lines := strings.Split(clean(k.Detail), "\n")
		if k.Next != "" {
			lines = append(lines, "next: "+clean(k.Next))
		}
		fmt.Fprintf(&b, "%-7s %-12s %s\n", strings.ToUpper(k.Result), k.Name, lines[0])
		for _, l := range lines[1:] {
			fmt.Fprintf(&b, "%-7s %-12s %s\n", "", "", strings.TrimSpace(l))
		}
	}
	switch {
	case failed > 0:
		fmt.Fprintf(&b, "\nnot ready: %d of %d checks failed\n", failed, len(checks))
	case left > 0:
		fmt.Fprintf(&b, "\nnothing failed; %d of %d checks are open\n", left, len(checks))
	default:
		b.WriteString("\nready\n")
	}
	return p.c.printf("%s", b.String())
}
