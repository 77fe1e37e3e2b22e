package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/dcap"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const collateralHelp = `Collateral is what vendors publish about their platforms and what verifiers
need: Intel's TCB info, identities and revocation lists; AMD's revocation lists,
chains and certificates of chips. All of it is signed by the vendors and good
for some weeks.

These commands keep it in a directory: that of 'measure verify --collateral', or
that of a key broker, which is the directory collateral in its state_dir. To a
machine without a network it goes as a kit, signed by you:

  measure collateral fetch --dir ./collateral --fmspc 00806f050000 --amd Genoa
  measure collateral export --dir ./collateral --key me.key > collateral.kit
  measure collateral import --dir /var/lib/kbs/collateral --key me.pub collateral.kit

Whatever comes in is checked first: that it is what its name says, that its
vendor signed it, that it holds now, and that it is not older than what is there.`

// collateralFlags say which directory, and who may have signed what is in it.
type collateralFlags struct {
	dir, at        string
	simulatedRoots []string
}

func (f *collateralFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.dir, "dir", "", "`DIR` that keeps collateral; it is made if it is absent")
	s.StringArrayVar(&f.simulatedRoots, "simulated-root", nil, "trust a simulated vendor: `NAME=FILE` of its root.pem (repeatable)")
	s.StringVar(&f.at, "at", "", "take this `TIME` (RFC 3339) for now")
	_ = cmd.MarkFlagRequired("dir")
}

func (c *cli) collateralCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "collateral",
		Short: "Fetch, show and carry what vendors publish about platforms",
		Long:  collateralHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.collateralFetchCommand(), c.collateralShowCommand(), c.collateralExportCommand(), c.collateralImportCommand())
	return cmd
}

// trusted returns those who may have signed collateral.
func (c *cli) trusted(f collateralFlags) ([]*x509.Certificate, error) {
	var amd []snp.SimulatedRoot
	var intel []dcap.SimulatedRoot
	roots, err := c.namedFiles("simulated-root", f.simulatedRoots)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		if ofAMD(r.data) {
			amd = append(amd, snp.SimulatedRoot{Name: r.name, Bundle: r.data})
		} else {
			intel = append(intel, dcap.SimulatedRoot{Name: r.name, Bundle: r.data})
		}
	}
	return collateral.Authorities(amd, intel)
}

// ofAMD tells a simulated AMD from a simulated Intel.
func ofAMD(bundle []byte) bool {
	block, _ := pem.Decode(bundle)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && strings.HasPrefix(cert.Subject.CommonName, "ARK-")
}

// store opens the directory. Who is asked for more depends on the command.
func (c *cli) store(f collateralFlags, trusted []*x509.Certificate, from ...collateral.Fetcher) (*collateral.Store, error) {
	now, err := clock(f.at)
	if err != nil {
		return nil, err
	}
	return collateral.Open(collateral.Config{
		Dir: f.dir, Fetchers: from, Authorities: trusted, Now: now,
		Logger: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// clock is the time of --at, or the machine's.
func clock(at string) (func() time.Time, error) {
	if at == "" {
		return time.Now, nil
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return nil, fmt.Errorf("--at wants a time like 2026-01-01T00:00:00Z: %w", err)
	}
	return func() time.Time { return t }, nil
}

func (c *cli) collateralShowCommand() *cobra.Command {
	var f collateralFlags
	output := oneOf("table", "json")
	cmd := &cobra.Command{
		Use:     "show --dir DIR",
		Short:   "Show what a directory holds, and until when",
		Long:    "Show lists what a directory holds, and until when each of it is good. What is not\nsigned by its vendor is not shown, but named on stderr.",
		Example: "  measure collateral show --dir ./collateral",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			trusted, err := c.trusted(f)
			if err != nil {
				return err
			}
			s, err := c.store(f, trusted)
			if err != nil {
				return err
			}
			if _, err := s.Items(); err != nil { // certificates of chips into memory too
				return err
			}
			if output.value == "json" {
				return c.printJSON(s.Status())
			}
			c.printStatus(s.Status())
			return s.Close()
		},
	}
	f.add(cmd)
	cmd.Flags().VarP(output, "output", "o", "output format")
	return cmd
}

func (c *cli) printStatus(all []collateral.Status) {
	t := table{head: []string{"NAME", "FROM", "UNTIL", "SOURCE"}}
	for _, s := range all {
		t.rows = append(t.rows, []string{string(s.Name), s.From.Format(time.RFC3339), s.Until.Format(time.RFC3339), s.Source})
	}
	t.print(c.out)
}
