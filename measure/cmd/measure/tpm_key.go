package main

import (
	"encoding/pem"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
)

const tpmKeyHelp = `Tpm-key prints the attestation key of TPM evidence in PEM, as a broker takes it
in enrolled_keys, and this command in --enrolled-key. FILE is the evidence in
JSON; - is stdin. The key must have signed the evidence.

Anyone can make a key and sign with it. Enrol a key only if you know that it
lives in a TPM and signs nothing but what the TPM made: because you took the
evidence on the machine yourself, before anyone else had it, or because the TPM
proved it by credential activation.`

func (c *cli) tpmKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "tpm-key FILE",
		Short:   "Print the attestation key of TPM evidence, to enrol it",
		Long:    tpmKeyHelp,
		Example: "  guest-agent evidence --platform tpm --report-data 00 | measure tpm-key - >> keys.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			raw, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			e, err := tpm.ParseEvidence(measure.Evidence{Platform: measure.TPM, Data: raw})
			if err == nil {
				err = e.SignedByItsKey()
			}
			if err != nil {
				return unreadable(args[0], err)
			}
			_, _ = fmt.Fprintln(c.err, "measure: nothing here proves that this key lives in a TPM: enrol it only if you know")
			return pem.Encode(c.out, &pem.Block{Type: "PUBLIC KEY", Bytes: e.AKPublic})
		},
	}
}
