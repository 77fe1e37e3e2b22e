package main

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

// tpmFlags are those that only the TPM has.
type tpmFlags struct {
	keys, authorities []string
	selfDeclared      bool
}

func (c *cli) tpmRoom() room {
	f := new(tpmFlags)
	return room{
		platform: measure.TPM,
		flags: func(cmd *cobra.Command) {
			s := cmd.Flags()
			s.StringArrayVar(&f.keys, "enrolled-key", nil, "tpm: attestation keys that are trusted, `NAME=FILE` with them or their certificates in PEM (repeatable)")
			s.StringArrayVar(&f.authorities, "authority", nil, "tpm: who may certify attestation keys, `NAME=FILE` with certificates and revocation lists in PEM (repeatable)")
			s.BoolVar(&f.selfDeclared, "allow-self-declared-key", false, "tpm: waive that anyone vouches for the attestation key")
		},
		recognises: func(raw []byte) bool { return hasMembers(raw, "tpm_quote", "ak_public") },
		read: func(raw []byte) (measure.Evidence, error) {
			ev := measure.Evidence{Platform: measure.TPM, Data: raw}
			_, err := tpm.ParseEvidence(ev)
			return ev, err
		},
		verifier: func(_ context.Context, s settings) (measure.Verifier, error) { return c.tpmVerifier(f, s) },
		inspect:  inspectTPM,
	}
}

func (c *cli) tpmVerifier(f *tpmFlags, s settings) (measure.Verifier, error) {
	cfg := tpm.VerifierConfig{UnsafeSelfDeclaredKeys: f.selfDeclared, UnsafeNoRevocation: s.noCollateral, Now: s.now}
	keys, err := c.namedFiles("enrolled-key", f.keys)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		cfg.Enrolled = append(cfg.Enrolled, tpm.EnrolledKeys{Name: k.name, Keys: k.data})
	}
	authorities, err := c.namedFiles("authority", f.authorities)
	if err != nil {
		return nil, err
	}
	for _, a := range authorities {
		cfg.Authorities = append(cfg.Authorities, tpm.Authority{Name: a.name, Bundle: a.data})
	}
	for _, r := range s.roots {
		cfg.UnsafeSimulatedRoots = append(cfg.UnsafeSimulatedRoots, tpm.Authority{Name: r.name, Bundle: r.data})
	}
	return tpm.NewVerifier(cfg)
}

func inspectTPM(ev measure.Evidence) (inspection, error) {
	e, err := tpm.ParseEvidence(ev)
	if err != nil {
		return inspection{}, err
	}
	found := inspection{claims: e.Claims(), more: map[string]any{}}
	if len(e.AKCertificates) > 0 {
		var certs []certificateInfo
		for _, der := range e.AKCertificates {
			certs = append(certs, describeCertificate(der))
		}
		found.more["ak_certificates"] = certs
		found.tables = append(found.tables, certificateTable(certs))
	}
	return found, found.addLog(e.EventLog)
}

// quoteInspector shows the quote of a TPM by itself, as its makers sign it.
func quoteInspector() inspector {
	return inspector{
		kind:       "TPM quote",
		recognises: func(raw []byte) bool { return bytes.HasPrefix(raw, []byte{0xff, 'T', 'C', 'G'}) },
		inspect: func(raw []byte) (inspection, error) {
			q, err := tpm.ParseQuote(raw)
			if err != nil {
				return inspection{}, err
			}
			claims := measure.Claims{}
			tpm.QuoteClaims(claims, q, nil)
			return inspection{claims: claims}, nil
		},
	}
}

// logInspector shows an event log: what firmware and kernel measured, as Linux
// hands it out (binary_bios_measurements, or the CCEL table's area).
func logInspector() inspector {
	return inspector{
		kind: "event log",
		recognises: func(raw []byte) bool {
			_, err := eventlog.Parse(raw)
			return err == nil && len(raw) > 0
		},
		inspect: func(raw []byte) (inspection, error) {
			found := inspection{more: map[string]any{}}
			return found, found.addLog(raw)
		},
	}
}
