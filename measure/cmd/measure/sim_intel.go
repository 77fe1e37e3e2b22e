package main

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
)

// simIntelVendorCommand makes a vendor, which is the same for both TEEs.
func (c *cli) simIntelVendorCommand(tee dcap.TEE) *cobra.Command {
	return &cobra.Command{
		Use:   "vendor DIR",
		Short: "Make a vendor: root, CA of platforms, signer of collateral",
		Long: `Vendor makes a simulated Intel in DIR, which must not hold one yet. It can have
chips for TDX and for SGX.

  root.key, ca.key, tcb.key   the vendor's keys, readable by you only
  root.pem                    what a verifier needs to trust this vendor`,
		Example: fmt.Sprintf("  measure sim %s vendor ./vendor", tee),
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := dcap.CreateVendor(args[0]); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: wrote %s; a verifier trusts it only if you name it\n", filepath.Join(args[0], "root.pem"))
			return nil
		},
	}
}

// statementFlags are what a vendor says of its platforms.
type statementFlags struct {
	vendor, out, asOf      string
	status                 *choice
	advisories, revoked    []string
	revokeCA, revokeSigner bool
	evaluation             uint32
}

func (c *cli) simIntelCollateralCommand(tee dcap.TEE) *cobra.Command {
	f := statementFlags{status: oneOf(statuses()...)}
	cmd := &cobra.Command{
		Use:   "collateral --vendor DIR --out DIR",
		Short: "Say what a vendor's platforms are worth",
		Long: `Collateral makes what a simulated vendor publishes: what the TCB of its chips is
worth, which quoting enclave is its own, and which certificates are revoked. It
is valid for thirty days. --out gets one file for each, as Intel's service
answers, and is what 'measure verify --collateral' and the broker read.`,
		Example: fmt.Sprintf(`  measure sim %[1]s collateral --vendor ./vendor --out ./collateral
  measure sim %[1]s collateral --vendor ./vendor --out ./revoked --revoke ./guest`, tee),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return simIntelCollateral(tee, f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.vendor, "vendor", "", "`DIR` of the vendor")
	s.StringVar(&f.out, "out", "", "`DIR` to write the collateral to; must not hold any yet")
	s.Var(f.status, "status", "what the best TCB is worth")
	s.StringArrayVar(&f.advisories, "advisory", nil, "`ID` of an advisory about the best TCB (repeatable)")
	s.StringArrayVar(&f.revoked, "revoke", nil, "revoke the certificate of the guest's chip in `DIR` (repeatable)")
	s.BoolVar(&f.revokeCA, "revoke-ca", false, "revoke the CA of all chips")
	s.BoolVar(&f.revokeSigner, "revoke-signer", false, "revoke the signer of the collateral itself")
	s.Uint32Var(&f.evaluation, "tcb-eval", 0, "`NUMBER` of the TCB evaluation instead of the usual one")
	s.StringVar(&f.asOf, "as-of", "", "make it as of this `TIME` (RFC 3339) instead of now; its end is thirty days later")
	_ = cmd.MarkFlagRequired("vendor")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// statuses are those that Intel gives to a level, the usual one first.
func statuses() []string {
	var out []string
	for _, s := range append(dcap.Acceptable(), dcap.Revoked) {
		if !strings.HasPrefix(string(s), "TDRelaunch") { // these follow from two levels
			out = append(out, string(s))
		}
	}
	return out
}

func simIntelCollateral(tee dcap.TEE, f statementFlags) error {
	v, err := dcap.OpenVendor(f.vendor)
	if err != nil {
		return err
	}
	now := time.Now()
	if f.asOf != "" {
		if now, err = time.Parse(time.RFC3339, f.asOf); err != nil {
			return fmt.Errorf("--as-of wants a time like 2026-01-01T00:00:00Z: %w", err)
		}
	}
	s := dcap.Statement{
		RevokeCA: f.revokeCA, RevokeSigner: f.revokeSigner,
		TCBInfo: func(i *dcap.TCBInfo) {
			i.Levels[0].Status, i.Levels[0].Advisories = dcap.Status(f.status.value), f.advisories
			if f.evaluation != 0 {
				i.EvaluationNumber = f.evaluation
			}
		},
		QEIdentity: func(i *dcap.QEIdentity) {
			if f.evaluation != 0 {
				i.EvaluationNumber = f.evaluation
			}
		},
	}
	for _, dir := range f.revoked {
		chip, err := dcap.OpenChip(tee, dir)
		if err != nil {
			return fmt.Errorf("--revoke: %w", err)
		}
		s.Revoked = append(s.Revoked, chip.PCK())
	}
	published, err := v.Collateral(tee, now, s)
	if err != nil {
		return err
	}
	return published.Save(f.out)
}

// chipFlags make a platform that is not as its vendor wants it.
type chipFlags struct {
	tcb     *choice
	expired bool
}

// What can be old about a platform.
const (
	tcbUpToDate    = "up-to-date"
	tcbOldPlatform = "old-platform"
	tcbOldQE       = "old-qe"
	tcbOldModule   = "old-module" // TDX alone
	tcbUnknown     = "unknown"
)

func (f *chipFlags) add(cmd *cobra.Command, tcbs ...string) {
	f.tcb = oneOf(tcbs...)
	cmd.Flags().Var(f.tcb, "tcb", "what of the platform is out of date; unknown is below every level that the vendor lists")
	cmd.Flags().BoolVar(&f.expired, "expired", false, "give the chip a certificate that has expired")
}

func (f *chipFlags) options() dcap.ChipOptions {
	var o dcap.ChipOptions
	switch f.tcb.value {
	case tcbOldPlatform:
		o.PCK = func(p *dcap.PCK) {
			for i, n := range p.Components {
				p.Components[i] = n - min(n, 1)
			}
			p.CPUSVN = p.Components
		}
	case tcbUnknown:
		o.PCK = func(p *dcap.PCK) { p.Components, p.CPUSVN, p.PCESVN = [16]uint8{}, [16]byte{}, 0 }
	case tcbOldQE:
		o.QE = func(r *dcap.EnclaveReport) { r.ISVSVN -= 2 }
	}
	if f.expired {
		o.Certificate = func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }
	}
	return o
}
