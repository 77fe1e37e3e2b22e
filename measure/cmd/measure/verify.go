package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

const verifyHelp = `Verify tells what evidence is worth: who signed it, whether the chain ends in a
trusted root, whether key and firmware fit together, and what it is bound to.
It makes all checks and reports all failures, not only the first.

FILE is evidence as it is sent, the JSON of the KBS protocol, or a report or
quote as the hardware hands it out. What kind it is shows; say it with
--platform where it does not.

Verified evidence is genuine, not good: whether the measurement in it is the
one you want is for the broker's policies to say, over the claims printed here.

Nothing is skipped in silence. You must say what the evidence is bound to, or
waive that with --allow-unbound. If the guest presented init-data, give the
document: without --init-data the field that is bound to it is only a claim.

What needs the vendor's collateral (revocation lists, what a TCB is worth for Intel,
reference measurements of a GPU's firmware) fails unless it is at hand, or --allow-no-collateral waives it; chain and
signature are checked all the same. A guest that its host may debug, or move to
another machine, is refused unless that is allowed. Simulated evidence is refused
unless --simulated-root names its root.

With -o json, "verdict" is "verified" or "refused".
Exit code 0 if every check passed or was waived, 3 if one failed.`

const verifyExample = `  # evidence of a simulated guest
  measure verify --evidence evidence.json --report-data 00ff --init-data initdata.toml \
      --simulated-root mine=vendor/root.pem

  # a raw report from hardware, at a time when its certificates were valid
  measure verify --platform snp --evidence report.bin --certs vcek.der --crl Genoa=genoa.crl \
      --report-data 00ff --at 2026-01-01T00:00:00Z -o json

  # evidence that answered a broker's challenge
  measure verify --evidence - --nonce "$nonce" --tee-pubkey key.jwk --init-data initdata.toml < evidence.json`

type verifyFlags struct {
	platform, evidence, at string
	collateral             string
	simulatedRoots         []string
	noCollateral           bool
	debug, migratable      bool
	binding                bindingFlags
	output                 *choice
}

func (c *cli) verifyCommand() *cobra.Command {
	f := verifyFlags{output: oneOf("table", "json")}
	rooms := c.rooms()
	cmd := &cobra.Command{
		Use:     "verify --evidence FILE",
		Short:   "Tell what evidence is worth",
		Long:    verifyHelp,
		Example: verifyExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.verify(cmd.Context(), rooms, f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.platform, "platform", "", "`PLATFORM` of the evidence, where it does not show: "+strings.Join(platformNames(rooms), ", "))
	s.StringVar(&f.evidence, "evidence", "", "`FILE` with evidence in JSON as the KBS protocol carries it, or a raw report or quote; - is stdin")
	s.StringArrayVar(&f.simulatedRoots, "simulated-root", nil, "trust a simulated vendor: `NAME=FILE` of its root.pem (repeatable)")
	s.BoolVar(&f.noCollateral, "allow-no-collateral", false, "waive what needs the vendor's collateral, where none is at hand")
	s.BoolVar(&f.debug, "allow-debug", false, "waive that the host cannot read and write the guest's memory")
	s.BoolVar(&f.migratable, "allow-migratable", false, "waive that the guest stays on the machine that is judged here")
	s.StringVar(&f.collateral, "collateral", "", "`DIR` with what vendors publish: files as they serve them, or what 'measure collateral' keeps")
	s.StringVar(&f.at, "at", "", "verify as of this `TIME` (RFC 3339) instead of now")
	s.VarP(f.output, "output", "o", "output format")
	_ = cmd.MarkFlagRequired("evidence")
	f.binding.add(cmd)
	for _, r := range rooms {
		if r.flags != nil {
			r.flags(cmd)
		}
	}
	return cmd
}

func (c *cli) verify(ctx context.Context, rooms []room, f verifyFlags) error {
	s, err := c.settings(f)
	if err != nil {
		return err
	}
	raw, err := c.readFile(f.evidence)
	if err != nil {
		return err
	}
	r, err := roomOf(rooms, f.platform, raw)
	if err != nil {
		return err
	}
	want, err := c.expected(f.binding, r.device)
	if err != nil {
		return err
	}
	verifier, err := r.verifier(ctx, s)
	if err != nil {
		return err
	}
	ev, err := r.read(raw)
	if err != nil {
		return unreadable(f.evidence, err)
	}
	verdict, verifyErr := verifier.Verify(ctx, ev, want)
	if verdict.Checks == nil {
		return invalidEvidence{verifyErr}
	}
	if f.output.value == "json" {
		err = c.printJSON(struct {
			Word string `json:"verdict"`
			measure.Verdict
		}{strings.ToLower(word(verdict)), verdict})
	} else {
		err = printVerdict(c.out, verdict)
	}
	if err != nil {
		return err
	}
	return verifyErr
}

// unreadable names the file of evidence that cannot be read. That another file
// is absent says nothing about the evidence.
func unreadable(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return invalidEvidence{fmt.Errorf("%s: %w", name, err)}
}

func (c *cli) settings(f verifyFlags) (settings, error) {
	now, err := clock(f.at)
	if err != nil {
		return settings{}, err
	}
	s := settings{now: now, noCollateral: f.noCollateral, collateral: f.collateral, debug: f.debug, migratable: f.migratable}
	s.warn = func(err error) { _, _ = fmt.Fprintf(c.err, "measure: not used: %v\n", err) }
	s.roots, err = c.namedFiles("simulated-root", f.simulatedRoots)
	return s, err
}
