package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/snp"
)

const inspectHelp = `Inspect shows what evidence says, without asking whether it is true. FILE is
evidence in JSON as the KBS protocol carries it, or a raw report of 1184 bytes;
- is stdin.

The names are those that the broker's policies use. Nothing is verified here:
anyone can write such a file. Use 'measure verify' for that.`

func (c *cli) inspectCommand() *cobra.Command {
	output := oneOf("table", "json")
	cmd := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Show what evidence says, without verifying it",
		Long:    inspectHelp,
		Example: "  measure inspect evidence.json\n  measure inspect report.bin -o json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return c.inspect(args[0], output.value) },
	}
	cmd.Flags().VarP(output, "output", "o", "output format")
	return cmd
}

// certificateInfo is what a certificate says of itself.
type certificateInfo struct {
	Type      snp.CertType `json:"type"`
	UUID      string       `json:"uuid,omitempty"`
	SHA256    string       `json:"sha256"`
	Subject   string       `json:"subject,omitempty"`
	Issuer    string       `json:"issuer,omitempty"`
	NotBefore string       `json:"not_before,omitempty"`
	NotAfter  string       `json:"not_after,omitempty"`
	Error     string       `json:"error,omitempty"`
}

func describe(c snp.Certificate) certificateInfo {
	sum := sha256.Sum256(c.Data)
	i := certificateInfo{Type: c.Type, UUID: c.UUID, SHA256: hex.EncodeToString(sum[:])}
	switch c.Type {
	case snp.CertCRL, snp.CertEmpty, snp.CertOther:
		return i
	case snp.CertVCEK, snp.CertVLEK, snp.CertASK, snp.CertARK:
	}
	cert, err := x509.ParseCertificate(c.Data)
	if err != nil {
		i.Error = err.Error()
		return i
	}
	i.Subject, i.Issuer = cert.Subject.String(), cert.Issuer.String()
	i.NotBefore, i.NotAfter = cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339)
	return i
}

func (c *cli) inspect(name, output string) error {
	e, err := c.readEvidence(name, nil)
	if err != nil {
		return err
	}
	certs := make([]certificateInfo, 0, len(e.Certificates))
	for _, cert := range e.Certificates {
		certs = append(certs, describe(cert))
	}
	claims := e.Report.Claims()
	_, _ = fmt.Fprintln(c.err, "measure: nothing of this is verified")
	if output == "json" {
		return c.printJSON(map[string]any{
			"platform": "snp", "verified": false, "signing_key": e.Report.SigningKey().String(), "claims": claims, "certificates": certs,
		})
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CLAIM\tVALUE")
	for _, k := range slices.Sorted(maps.Keys(claims)) {
		_, _ = fmt.Fprintf(w, "%s\t%v\n", k, claims[k])
	}
	_, _ = fmt.Fprintln(w, "\nCERTIFICATE\tVALID UNTIL\tSHA-256")
	for _, i := range certs {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", i.Type, i.NotAfter, i.SHA256)
	}
	_ = w.Flush() // into memory
	_, err = io.WriteString(c.out, b.String())
	return err
}
