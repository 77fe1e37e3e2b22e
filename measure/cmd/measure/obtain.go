package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/measure/obtain"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

const obtainHelp = `Obtain asks the hardware below this machine for evidence, bound to the report
data, and prints it in the JSON that the KBS protocol carries: what the guest
agent would send to the broker. It runs in the guest, usually as root.

The platform is found by what the kernel shows, in this order:

  tdx          configfs-tsm or /dev/tdx_guest; quotes by the host's quote service
               over vsock, else by configfs-tsm
  snp          configfs-tsm, else /dev/sev-guest
  cca          configfs-tsm
  az-tdx-vtpm  the HCL report in the TPM of an Azure VM, and Azure's metadata
  az-snp-vtpm  service for quote or certificate
  tpm          /dev/tpmrm0, else /dev/tpm0; makes an attestation key at 0x81010002
               if there is none

Nothing found is an error that tells of each what was missing; --probe only
looks, and asks for no evidence. There is no sample to fall back to: for
evidence without hardware see 'measure sim'.

Exit code 4 if there is no such platform.`

const obtainExample = `  # what is this machine?
  measure obtain --probe

  # evidence over a challenge, and what it is worth
  measure obtain --report-data 00ff > evidence.json
  measure verify --evidence evidence.json --report-data 00ff --allow-unbound-init-data --allow-no-collateral

  # the key of a TPM, for whoever enrols it
  measure obtain --platform tpm --report-data 00ff --ak-out ak.pem > evidence.json`

type obtainFlags struct {
	platform            *choice
	reportData          string
	tpmDevice, log, key string
	probe               bool
	output              *choice
}

func (c *cli) obtainCommand() *cobra.Command {
	names := []string{"auto"}
	for _, p := range obtain.Platforms() {
		names = append(names, string(p))
	}
	f := obtainFlags{platform: oneOf(names...), output: oneOf("json", "table")}
	cmd := &cobra.Command{
		Use:     "obtain --report-data HEX",
		Short:   "Obtain evidence of this machine",
		Long:    obtainHelp,
		Example: obtainExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.obtain(cmd.Context(), f) },
	}
	s := cmd.Flags()
	s.Var(f.platform, "platform", "platform to obtain evidence of, auto for the one that is found")
	s.StringVar(&f.reportData, "report-data", "", "`HEX` to bind the evidence to, at most 64 bytes")
	s.StringVar(&f.tpmDevice, "tpm-device", "", "`PATH` of the TPM's device node or socket (default: the first of /dev/tpmrm0 and /dev/tpm0)")
	s.StringVar(&f.log, "runtime-log", aael.DefaultPath, "`FILE` with the runtime events that the agent recorded, if there is one")
	s.StringVar(&f.key, "ak-out", "", "tpm: write the attestation key to this new `FILE` in PEM")
	s.BoolVar(&f.probe, "probe", false, "only tell which platform this machine has")
	s.VarP(f.output, "output", "o", "output format; table shows the claims, as 'measure inspect' does")
	cmd.MarkFlagsOneRequired("report-data", "probe")
	cmd.MarkFlagsMutuallyExclusive("report-data", "probe")
	return cmd
}

func (c *cli) obtain(ctx context.Context, f obtainFlags) error {
	digest, err := parseReportData(f.reportData)
	if err != nil {
		return err
	}
	if len(digest) == 0 && !f.probe {
		return errors.New("--report-data is empty, and evidence about nothing answers no challenge")
	}
	guest, err := obtain.Open(ctx, f.config(c))
	missing, none := errors.AsType[*obtain.NotFound](err)
	switch {
	case f.probe && none:
		return errors.Join(c.printProbes(missing.Probes, f.output.value), obtain.ErrNone)
	case f.probe && err == nil:
		return c.printProbes(guest.Probes, f.output.value)
	case none:
		return nothingFound{missing}
	case err != nil:
		return err
	}
	ev, err := measure.EvidenceOver(ctx, guest.Attester, digest)
	if err != nil {
		return err
	}
	if f.key != "" {
		if err := writeAK(f.key, ev); err != nil {
			return err
		}
	}
	found := guest.Probes[len(guest.Probes)-1]
	_, _ = fmt.Fprintf(c.err, "measure: this is %s: %s\n", found.Platform, found.Seen)
	if f.output.value == "table" {
		return c.showEvidence(ev)
	}
	_, err = fmt.Fprintf(c.out, "%s\n", ev.Data)
	return err
}

func (f obtainFlags) config(c *cli) obtain.Config {
	var devices []string
	if f.tpmDevice != "" {
		devices = []string{f.tpmDevice}
	}
	machine := obtain.ThisMachine
	if c.machine != nil {
		machine = c.machine
	}
	cfg := obtain.Config{Machine: machine(devices...), RuntimeLog: f.log, Logger: slog.New(slog.NewTextHandler(c.err, nil))}
	if f.platform.value != "auto" {
		cfg.Platform = measure.Platform(f.platform.value)
	}
	return cfg
}

// nothingFound shows a person line by line what logs have in one.
type nothingFound struct{ *obtain.NotFound }

// Error tells of each platform what was missing.
func (e nothingFound) Error() string {
	var b bytes.Buffer
	b.WriteString("no attester for this machine")
	if e.Wanted != "" {
		b.WriteString(" of platform " + string(e.Wanted))
	}
	for _, p := range e.Probes {
		_, _ = fmt.Fprintf(&b, "\n  %-12s %s", p.Platform, p.Seen)
	}
	b.WriteString("\n  hint         run this in the guest, as root, with configfs mounted at /sys/kernel/config; for a try without hardware: measure sim")
	return b.String()
}

// Unwrap returns the error that was shown.
func (e nothingFound) Unwrap() error { return e.NotFound }

func (c *cli) printProbes(probes []obtain.Probe, output string) error {
	type line struct {
		Platform measure.Platform `json:"platform"`
		Found    bool             `json:"found"`
		Seen     string           `json:"seen"`
		Failed   bool             `json:"failed,omitempty"`
	}
	lines := []line{}
	t := table{head: []string{"PLATFORM", "FOUND", "SEEN"}}
	for _, p := range probes {
		lines = append(lines, line{p.Platform, p.Found, p.Seen, p.Err != nil})
		t.rows = append(t.rows, []string{string(p.Platform), map[bool]string{true: "yes", false: "no"}[p.Found], p.Seen})
	}
	if output == "json" {
		return c.printJSON(lines)
	}
	var b bytes.Buffer
	t.print(&b)
	_, err := b.WriteTo(c.out)
	return err
}

// showEvidence shows what evidence says, as 'measure inspect' does.
func (c *cli) showEvidence(ev measure.Evidence) error {
	rooms := c.rooms()
	at := slices.IndexFunc(rooms, func(r room) bool { return r.platform == ev.Platform })
	if at < 0 {
		return fmt.Errorf("nothing here shows evidence of %s", ev.Platform)
	}
	found, err := rooms[at].inspect(ev)
	if err != nil {
		return err
	}
	return c.printInspection(found)
}

// writeAK writes the key that signed a TPM's quote, for who enrols it.
func writeAK(path string, ev measure.Evidence) error {
	if ev.Platform != measure.TPM {
		return fmt.Errorf("--ak-out is for the platform tpm: on %s the hardware vouches for its key", ev.Platform)
	}
	e, err := tpm.ParseEvidence(ev)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: "PUBLIC KEY", Bytes: e.AKPublic}), f.Close())
}
