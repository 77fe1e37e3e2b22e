package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const verifyHelp = `Verify tells what evidence is worth: who signed it, whether the chain ends in a
trusted root, whether key and firmware fit together, and what it is bound to.
It makes all checks and reports all failures, not only the first.

Verified evidence is genuine, not good: whether the measurement in it is the
one you want is for the broker's policies to say, over the claims printed here.

Nothing is skipped in silence. You must say what the report is bound to, or
waive that with --allow-unbound. The same holds for init-data. Revocation fails
unless a revocation list is at hand or --allow-no-revocation waives it.
Simulated evidence is refused unless --simulated-root names its root.

Exit code 0 if every check passed or was waived, 3 if one failed.`

const verifyExample = `  # evidence of a simulated guest
  measure verify --evidence evidence.json --report-data 00ff --init-data initdata.toml \
      --simulated-root mine=vendor/root.pem

  # a raw report from hardware, at a time when its certificates were valid
  measure verify --evidence report.bin --certs vcek.der --crl Genoa=genoa.crl \
      --report-data 00ff --allow-unbound-init-data --at 2026-01-01T00:00:00Z -o json`

type verifyFlags struct {
	evidence, reportData, initData, at               string
	certs, simulatedRoots, crls                      []string
	unbound, unboundInitData, noRevocation, version2 bool
	output                                           *choice
}

func (c *cli) verifyCommand() *cobra.Command {
	f := verifyFlags{output: oneOf("table", "json")}
	cmd := &cobra.Command{
		Use:     "verify --evidence FILE",
		Short:   "Tell what evidence is worth",
		Long:    verifyHelp,
		Example: verifyExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.verify(cmd.Context(), f) },
	}
	s := cmd.Flags()
	s.Var(oneOf("snp"), "platform", "platform of the evidence")
	s.StringVar(&f.evidence, "evidence", "", "`FILE` with evidence in JSON as the KBS protocol carries it, or a raw report; - is stdin")
	s.StringArrayVar(&f.certs, "certs", nil, "`FILE` with certificates for a raw report, PEM or DER (repeatable)")
	s.StringVar(&f.reportData, "report-data", "", "`HEX` that the report must be bound to, at most 64 bytes; zeros are added")
	s.BoolVar(&f.unbound, "allow-unbound", false, "waive the binding: accept a report over any challenge")
	s.StringVar(&f.initData, "init-data", "", "`FILE` with the init-data document that the report must be bound to")
	s.BoolVar(&f.unboundInitData, "allow-unbound-init-data", false, "waive the init-data binding")
	s.StringArrayVar(&f.simulatedRoots, "simulated-root", nil, "trust a simulated vendor: `NAME=FILE` of its root.pem (repeatable)")
	s.StringArrayVar(&f.crls, "crl", nil, "AMD's revocation list, `GENERATION=FILE` with Milan, Genoa or Turin (repeatable)")
	s.BoolVar(&f.noRevocation, "allow-no-revocation", false, "waive revocation where no current list is at hand")
	s.BoolVar(&f.version2, "allow-report-v2", false, "accept reports of version 2, which do not name their processor")
	s.StringVar(&f.at, "at", "", "verify as of this `TIME` (RFC 3339) instead of now")
	s.VarP(f.output, "output", "o", "output format")
	_ = cmd.MarkFlagRequired("evidence")
	for _, pair := range [][]string{{"report-data", "allow-unbound"}, {"init-data", "allow-unbound-init-data"}} {
		cmd.MarkFlagsOneRequired(pair...)
		cmd.MarkFlagsMutuallyExclusive(pair...)
	}
	return cmd
}

func (c *cli) verify(ctx context.Context, f verifyFlags) error {
	verifier, err := c.verifier(f)
	if err != nil {
		return err
	}
	want, err := c.expected(f)
	if err != nil {
		return err
	}
	e, err := c.readEvidence(f.evidence, f.certs)
	if err != nil {
		return err
	}
	ev, err := e.Wire()
	if err != nil {
		return invalidEvidence{err}
	}
	verdict, verifyErr := verifier.Verify(ctx, ev, want)
	if verdict.Checks == nil {
		return invalidEvidence{verifyErr}
	}
	if f.output.value == "json" {
		err = c.printJSON(verdict)
	} else {
		err = printVerdict(c.out, verdict)
	}
	if err != nil {
		return err
	}
	return verifyErr
}

func (c *cli) verifier(f verifyFlags) (*snp.Verifier, error) {
	cfg := snp.VerifierConfig{UnsafeNoRevocation: f.noRevocation, UnsafeReportVersion2: f.version2}
	if f.at != "" {
		at, err := time.Parse(time.RFC3339, f.at)
		if err != nil {
			return nil, fmt.Errorf("--at wants a time like 2026-01-01T00:00:00Z: %w", err)
		}
		cfg.Now = func() time.Time { return at }
	}
	roots, err := c.namedFiles("simulated-root", f.simulatedRoots)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		cfg.UnsafeSimulatedRoots = append(cfg.UnsafeSimulatedRoots, snp.SimulatedRoot{Name: r.name, Bundle: r.data})
	}
	crls, err := c.namedFiles("crl", f.crls)
	if err != nil {
		return nil, err
	}
	cfg.RevocationLists = map[snp.Generation][]byte{}
	for _, l := range crls {
		cfg.RevocationLists[snp.Generation(l.name)] = l.data
	}
	return snp.NewVerifier(cfg)
}

func (c *cli) expected(f verifyFlags) (measure.Expected, error) {
	want := measure.Expected{
		ReportData: measure.UnsafeUnbound("waived by --allow-unbound"),
		InitData:   measure.UnsafeUnbound("waived by --allow-unbound-init-data"),
	}
	if !f.unbound {
		data, err := parseReportData(f.reportData)
		if err != nil {
			return want, err
		}
		want.ReportData = measure.BoundTo(data[:])
	}
	if !f.unboundInitData {
		doc, err := c.initData(f.initData)
		if err != nil {
			return want, err
		}
		want.InitData = measure.BoundTo(doc.Digest())
	}
	return want, nil
}

func parseReportData(text string) (measure.ReportData, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return measure.ReportData{}, fmt.Errorf("--report-data: %w", err)
	}
	data, err := measure.NewReportData(raw)
	if err != nil {
		return data, fmt.Errorf("--report-data: %w", err)
	}
	return data, nil
}

func printVerdict(out io.Writer, v measure.Verdict) error {
	var b strings.Builder
	verdict := "verified"
	if v.Err() != nil {
		verdict = "REFUSED"
	}
	root := v.Root.Name
	switch {
	case root == "":
		root = "none that is trusted"
	case v.Root.Simulated:
		root += "   SIMULATED: no hardware vouches for this"
	}
	text := func(name string) string { s, _ := v.Claims[name].(string); return s }
	fmt.Fprintf(&b, "evidence:     %s\nroot:         %s\nprocessor:    %s\nmeasurement:  %s\nreport data:  %s\ninit-data:    %s\n\n",
		verdict, root, text("processor"), text("measurement"), text("report_data"), text("init_data"))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CHECK\tOUTCOME\tREASON")
	for _, c := range v.Checks {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", c.Name, c.Outcome, c.Reason)
	}
	_ = w.Flush() // into memory
	for _, c := range v.Checks {
		for _, f := range c.Findings {
			fmt.Fprintf(&b, "\n%s: %s\n  seen    %s\n", c.Name, f.Field, f.Seen)
			for _, want := range f.Wanted {
				fmt.Fprintf(&b, "  wanted  %s\n", want)
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
