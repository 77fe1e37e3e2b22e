package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/collateral"
	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

// snpFlags are those that only SEV-SNP has.
type snpFlags struct {
	certs, crls  []string
	noRevocation bool
}

func (c *cli) snpRoom() room {
	f := new(snpFlags)
	return room{
		platform: measure.SNP,
		flags: func(cmd *cobra.Command) {
			s := cmd.Flags()
			s.StringArrayVar(&f.certs, "certs", nil, "snp: `FILE` with certificates for a raw report, PEM or DER (repeatable)")
			s.StringArrayVar(&f.crls, "crl", nil, "snp: AMD's revocation list, `GENERATION=FILE` with Milan, Genoa or Turin (repeatable)")
			s.BoolVar(&f.noRevocation, "allow-no-revocation", false, "snp: waive revocation where no current list is at hand")
		},
		recognises: func(raw []byte) bool {
			if len(raw) == snp.ReportSize && !isJSON(raw) {
				return true
			}
			return hasMembers(raw, "attestation_report") && !hasMembers(raw, "serial_number")
		},
		read:     func(raw []byte) (measure.Evidence, error) { return c.readSNP(raw, f.certs) },
		verifier: func(_ context.Context, s settings) (measure.Verifier, error) { return c.snpVerifier(f, s) },
		needs:    needsSNP,
		inspect:  inspectSNP,
	}
}

func (c *cli) snpVerifier(f *snpFlags, s settings) (measure.Verifier, error) {
	cfg := snp.VerifierConfig{
		UnsafeNoRevocation: f.noRevocation || s.noCollateral, Now: s.now,
		RevocationLists: map[snp.Generation][]byte{},
		Require:         snp.Requirements{NoDebug: !s.debug, NoMigration: !s.migratable},
	}
	for _, r := range s.roots {
		cfg.UnsafeSimulatedRoots = append(cfg.UnsafeSimulatedRoots, snp.SimulatedRoot{Name: r.name, Bundle: r.data})
	}
	crls, err := c.namedFiles("crl", f.crls)
	if err != nil {
		return nil, err
	}
	for _, l := range crls {
		cfg.RevocationLists[snp.Generation(l.name)] = l.data
	}
	shelf, err := s.shelf(cfg.UnsafeSimulatedRoots, nil)
	if err != nil {
		return nil, err
	}
	if shelf != nil {
		cfg.Source = shelf
	}
	return snp.NewVerifier(cfg)
}

// readSNP reads evidence in its wire form, or a raw report, to which the
// certificates of the given files belong.
func (c *cli) readSNP(raw []byte, certs []string) (measure.Evidence, error) {
	ev := measure.Evidence{Platform: measure.SNP, Data: raw}
	if len(raw) != snp.ReportSize || isJSON(raw) {
		if len(certs) > 0 {
			return ev, errors.New("--certs goes with a raw report; evidence in JSON has its own certificates")
		}
		_, err := snp.ParseEvidence(ev)
		return ev, err
	}
	e := new(snp.Evidence)
	var err error
	if e.Report, err = snp.ParseReport(raw); err != nil {
		return ev, err
	}
	for _, path := range certs {
		more, err := c.readCertificates(path)
		if err != nil {
			return ev, err
		}
		e.Certificates = append(e.Certificates, more...)
	}
	return e.Wire()
}

// readCertificates reads one certificate in DER, or any number in PEM.
func (c *cli) readCertificates(path string) ([]snp.Certificate, error) {
	rest, err := c.readFile(path)
	if err != nil {
		return nil, err
	}
	var ders [][]byte
	for block, tail := pem.Decode(rest); block != nil; block, tail = pem.Decode(rest) {
		rest = tail
		if block.Type == pemCertificate {
			ders = append(ders, block.Bytes)
		}
	}
	if ders == nil {
		ders = [][]byte{rest}
	}
	var out []snp.Certificate
	for _, der := range ders {
		kind, err := certificateType(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, snp.Certificate{Type: kind, Data: der})
	}
	return out, nil
}

// certificateType tells AMD's certificates apart by their names.
func certificateType(der []byte) (snp.CertType, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "", err
	}
	switch name := cert.Subject.CommonName; {
	case name == "SEV-VCEK":
		return snp.CertVCEK, nil
	case name == "SEV-VLEK":
		return snp.CertVLEK, nil
	case strings.HasPrefix(name, "ARK-"):
		return snp.CertARK, nil
	case strings.HasPrefix(name, "SEV-"):
		return snp.CertASK, nil
	default:
		return "", fmt.Errorf("a certificate named %q is none of AMD's", name)
	}
}

// needsSNP lists lists and chain, and the chip's certificate where it did not
// come along.
func needsSNP(ev measure.Evidence) ([]collateral.Name, error) {
	e, err := snp.ParseEvidence(ev)
	if err != nil {
		return nil, err
	}
	g, err := e.Report.Generation()
	if err != nil {
		return nil, err
	}
	key := e.Report.SigningKey()
	if key == snp.Unsigned {
		return nil, errors.New("the report is not signed")
	}
	out := []collateral.Name{collateral.AMDList(g, key), collateral.AMDChain(g, key)}
	if key == snp.VCEK && len(e.Certificate(snp.CertVCEK)) == 0 {
		out = append(out, collateral.VCEK(g, g.HardwareID(e.Report.ChipID), e.Report.ReportedTCB))
	}
	return out, nil
}

func inspectSNP(ev measure.Evidence) (inspection, error) {
	e, err := snp.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	certs := make([]certificateInfo, 0, len(e.Certificates))
	for _, cert := range e.Certificates {
		var i certificateInfo
		switch cert.Type {
		case snp.CertCRL, snp.CertEmpty, snp.CertOther:
			i = describeBytes(cert.Data)
		case snp.CertVCEK, snp.CertVLEK, snp.CertASK, snp.CertARK:
			i = describeCertificate(cert.Data)
		}
		i.Type, i.UUID = string(cert.Type), cert.UUID
		certs = append(certs, i)
	}
	return inspection{
		claims: e.Report.Claims(),
		more:   map[string]any{"signing_key": e.Report.SigningKey().String(), "certificates": certs},
		tables: []table{certificateTable(certs)},
	}, nil
}
