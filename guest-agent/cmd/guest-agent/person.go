package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/agent"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

// personCommands are for a person in the guest, or one with a simulated device
// on a desk.
func personCommands(io stdio) []*cobra.Command {
	p := agent.Person{Options: agent.Options{Version: version.Here().Short(), Stderr: io.err}}
	var data string
	evidence := &cobra.Command{
		Use:   "evidence",
		Short: "Print evidence of this guest, as it travels to a broker",
		Long: `Prints evidence of this guest, as it travels to a broker. What it is worth:
measure verify.`,
		Example: `  guest-agent evidence --report-data 00ff >evidence.json
  measure inspect evidence.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ev, err := p.Evidence(cmd.Context(), data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(io.out, "%s\n", ev)
			return err
		},
	}
	evidence.Flags().StringVar(&data, "report-data", "", "`HEX` or base64 of at most 64 bytes to bind the evidence to")
	token := &cobra.Command{
		Use:   "token",
		Short: "Attest to the broker and print the attestation token",
		Example: `  guest-agent token
  guest-agent token --kbs https://127.0.0.1:8080 --kbs-ca state/tls/cert.pem --simulated-snp guest`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := p.Token(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(io.out, "%s\n", t.JWT.Reveal())
			return err
		},
	}
	resource := &cobra.Command{
		Use:   "resource URI",
		Short: "Attest to the broker and print a resource that it releases to this guest",
		Long: `Attests to the broker and prints a resource that it releases to this guest:
what the agent does for a container. On a machine without a TEE, --simulated-snp
names a guest that measure sim made.`,
		Example: `  guest-agent resource kbs:///default/key/1
  guest-agent resource kbs:///default/key/1 --kbs https://127.0.0.1:8080 --kbs-ca state/tls/cert.pem --simulated-snp guest`,
		Args: oneArg("the URI of a resource"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := p.Resource(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer value.Destroy()
			_, err = io.out.Write(value.Reveal())
			return err
		},
	}
	for _, cmd := range []*cobra.Command{evidence, token, resource} {
		attesterFlags(cmd, &p.Options)
	}
	for _, cmd := range []*cobra.Command{token, resource} {
		f := cmd.Flags()
		f.StringVar(&p.InitData, "init-data", "", "`FILE` with the init-data, as TOML or in the block-device form (default: none)")
		f.StringVar(&p.KernelCmdline, "kernel-cmdline", "/proc/cmdline", "`FILE` with the measured kernel command line")
		f.StringVar(&p.BrokerURL, "kbs", "", "`URL` of the broker (default: that of init-data or kernel command line)")
		f.StringVar(&p.BrokerCA, "kbs-ca", "", "PEM `FILE` with the certificate that the broker's must end in (default: the system's)")
	}
	return []*cobra.Command{evidence, token, resource}
}
