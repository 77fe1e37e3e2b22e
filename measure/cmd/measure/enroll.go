package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/ek"
	"github.com/vouchsafe-cc/vouchsafe/measure/enroll"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpm"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev"
	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

const enrollHelp = `Enroll finds out whether an attestation key lives in a genuine TPM, by credential
activation: the endorsement key, which the manufacturer certified, opens a
credential only in the TPM that also holds the attestation key.

Two of the four steps are for the machine with the TPM, two for whoever enrols
it; what goes between them may travel as files:

  request     machine    its endorsement certificate and its attestation key
  challenge   enroller   checks both; writes the challenge, and what is pending
  answer      machine    its TPM opens the challenge
  finish      enroller   the key in PEM, for enrolled_keys of the broker`

const enrollExample = `  measure enroll request > request.json
  measure enroll challenge request.json --manufacturer acme=acme-roots.pem --pending pending.json > challenge.json
  measure enroll answer challenge.json > answer.json
  measure enroll finish answer.json --pending pending.json >> enrolled.pem`

func (c *cli) enrollCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "enroll", Short: "Enrol the attestation key of a TPM", Long: enrollHelp, Example: enrollExample}
	cmd.AddCommand(c.enrollRequest(), c.enrollChallenge(), c.enrollAnswer(), c.enrollFinish())
	return cmd
}

// machineTPM is the TPM that the machine's steps use.
func machineTPM(device string) *tpmdev.TPM {
	if device == "" {
		return tpmdev.New(tpmdev.File(tpmdev.DefaultDevices...))
	}
	return tpmdev.New(tpmdev.File(device))
}

func deviceFlag(cmd *cobra.Command, device *string) {
	cmd.Flags().StringVar(device, "tpm-device", "", "`PATH` of the TPM's device node or socket (default: the first of /dev/tpmrm0 and /dev/tpm0)")
}

func (c *cli) enrollRequest() *cobra.Command {
	var device, template string
	cmd := &cobra.Command{
		Use: "request", Short: "On the machine: print what its TPM says of its keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chip := machineTPM(device)
			kind, certificate, err := chip.Endorsement(cmd.Context(), template)
			if err != nil {
				return err
			}
			r := enroll.Request{EKTemplate: kind.Name, EKCertificate: certificate}
			if r.AKPublic, err = chip.Public(cmd.Context(), tpm.DefaultAK); err != nil {
				return err
			}
			return c.printJSON(r)
		},
	}
	deviceFlag(cmd, &device)
	var names []string
	for _, t := range ek.Templates() {
		names = append(names, t.Name)
	}
	cmd.Flags().StringVar(&template, "ek-template", "", "which endorsement key, by the `NAME` of its template: "+strings.Join(names, ", ")+" (default: the first that the TPM has a certificate of)")
	return cmd
}

func (c *cli) enrollChallenge() *cobra.Command {
	var manufacturers []string
	var pending string
	var noRevocation bool
	cmd := &cobra.Command{
		Use: "challenge REQUEST", Short: "For the enroller: check the keys and print a challenge", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var r enroll.Request
			if err := c.readMessage(args[0], &r); err != nil {
				return err
			}
			trust := tpm.Endorsement{UnsafeNoRevocation: noRevocation, Now: time.Now()}
			files, err := c.namedFiles("manufacturer", manufacturers)
			if err != nil {
				return err
			}
			for _, f := range files {
				trust.Manufacturers = append(trust.Manufacturers, tpm.Authority{Name: f.name, Bundle: f.data})
			}
			challenge, p, err := enroll.Begin(r, trust)
			if err != nil {
				return err
			}
			if err := c.writeNew(pending, p); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(c.err, "measure: a TPM of %s, endorsement certificate %s\n", p.Manufacturer, p.EK)
			return c.printJSON(challenge)
		},
	}
	s := cmd.Flags()
	s.StringArrayVar(&manufacturers, "manufacturer", nil, "whose TPMs count, `NAME=FILE` with certificates and revocation lists in PEM (repeatable)")
	s.StringVar(&pending, "pending", "", "new `FILE` for what the last step needs")
	s.BoolVar(&noRevocation, "allow-no-revocation", false, "waive revocation lists of the manufacturer, where none are at hand")
	_ = cmd.MarkFlagRequired("manufacturer")
	_ = cmd.MarkFlagRequired("pending")
	return cmd
}

func (c *cli) enrollAnswer() *cobra.Command {
	var device string
	cmd := &cobra.Command{
		Use: "answer CHALLENGE", Short: "On the machine: have its TPM open the challenge", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var challenge enroll.Challenge
			if err := c.readMessage(args[0], &challenge); err != nil {
				return err
			}
			kind, err := ek.Find(challenge.EKTemplate)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			secret, err := machineTPM(device).Activate(cmd.Context(), tpm.DefaultAK, kind, challenge.Credential, challenge.Secret)
			if err != nil {
				return err
			}
			return c.printJSON(enroll.Answer{Secret: secret})
		},
	}
	deviceFlag(cmd, &device)
	return cmd
}

func (c *cli) enrollFinish() *cobra.Command {
	var pending string
	cmd := &cobra.Command{
		Use: "finish ANSWER", Short: "For the enroller: check the answer and print the key", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var p enroll.Pending
			var a enroll.Answer
			if err := errors.Join(c.readMessage(pending, &p), c.readMessage(args[0], &a)); err != nil {
				return err
			}
			key, err := p.Finish(a, time.Now())
			if err != nil {
				return err
			}
			_, err = c.out.Write(key)
			return err
		},
	}
	cmd.Flags().StringVar(&pending, "pending", "", "`FILE` that the challenge was written with")
	_ = cmd.MarkFlagRequired("pending")
	return cmd
}

// readMessage reads one of the four files.
func (c *cli) readMessage(name string, v any) error {
	raw, err := c.readFile(name)
	if err != nil {
		return err
	}
	if _, err = strictjson.Parse(raw); err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// writeNew writes a file that its owner alone can read, and replaces none.
func (c *cli) writeNew(name string, v any) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	out := *c
	out.out = f
	return errors.Join(out.printJSON(v), f.Close())
}
