package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/attester"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/boot"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/components"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/kata"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rest"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
	"github.com/vouchsafe-cc/vouchsafe/measure/aael"
	"github.com/vouchsafe-cc/vouchsafe/version"
)

// stdio is where data and messages go.
type stdio struct{ out, err io.Writer }

// errUsage marks errors in how the command was called.
var errUsage = errors.New("usage")

// run executes the command line and returns its exit code. The machine is the one
// that this process is the init of; nil for none.
func run(ctx context.Context, args []string, io stdio, m *boot.Machine) int {
	cmd := command(io, m)
	understood := false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	cmd.SetArgs(args)
	cmd.SetOut(io.out)
	cmd.SetErr(io.err)
	at, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	_, _ = fmt.Fprintf(io.err, "guest-agent: %s\n", strings.TrimSpace(err.Error()))
	if !understood || errors.Is(err, errUsage) {
		if !at.HasSubCommands() {
			_, _ = fmt.Fprintf(io.err, "  usage    %s\n", at.UseLine())
		}
		_, _ = fmt.Fprintf(io.err, "  hint     %s --help\n", at.CommandPath())
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Code.Exit()
	}
	return fault.ExitUsage
}

func command(io stdio, m *boot.Machine) *cobra.Command {
	root := &cobra.Command{
		Use:   "guest-agent",
		Short: "The agent of a confidential guest",
		Long: `The agent of a confidential guest, in place of kata-agent, attestation-agent,
confidential-data-hub and api-server-rest. As init of a machine (/sbin/init,
/init) it needs no command: it sets the machine up and serves.

  serve                        what a Kata runtime talks to
  resource, token, evidence    for a person in the guest: what would the broker say?
  genpolicy                    for the owner of a pod: what may the host ask of it?

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 usage or unknown,
2 refused by policy, 3 evidence or signature invalid, 4 not found, 6 unavailable
or timed out. A refusal shows a code and a ticket, which the broker's
administrator opens: kbsctl explain ticket/7QK2-M9TD.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          withoutCommand,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(serveCommand(io, m), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(io.out, version.Here().Line("guest-agent"))
			return err
		},
	})
	root.AddCommand(genpolicyCommand(io), &cobra.Command{
		Use:    "reference",
		Short:  "Print the page of the runtime's methods",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(io.out, kata.Reference()+settings.Reference())
			return err
		},
	})
	root.AddCommand(personCommands(io)...)
	return root
}

func withoutCommand(*cobra.Command, []string) error {
	if os.Getpid() == 1 {
		return fmt.Errorf("%w: process 1 of a container needs a command; only the init of a machine needs none", errUsage)
	}
	return fmt.Errorf("%w: a command is needed", errUsage)
}

// initDataOfDisk stands for the disk that a runtime brings init-data by, as the
// field's agent looks for it under any init.
const initDataOfDisk = "auto"

func serveCommand(io stdio, m *boot.Machine) *cobra.Command {
	o := agent.Options{Version: version.Here().Short(), Stderr: io.err}
	if m != nil {
		o.Complete = m.Complete
	}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the container runtime until the pod ends",
		Long: "Serves the Kata agent protocol for one pod, and the REST API for its workloads.\n" +
			"It ends when the runtime destroys the sandbox, or on SIGTERM. Needs root.",
		Example: `  guest-agent serve --init-data auto --resolv-conf /etc/resolv.conf
  guest-agent serve --listen unix:///run/agent.sock --state-dir /run/agent`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.PauseBinary, err = os.Executable(); err != nil {
				return err
			}
			if o.InitData == initDataOfDisk {
				if o.InitData, err = boot.StoreInitData(); err != nil {
					return fmt.Errorf("find the init-data disk: %w", err)
				}
			}
			return agent.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", "", "`ADDRESS` for the runtime: unix:///PATH, unix://@NAME, virtio-serial://NAME, vsock://CID:PORT or tcp://IP:PORT with mutual TLS (default: agent.server_addr of the kernel command line, else vsock://-1:1024)")
	f.StringVar(&o.TLSCert, "tls-cert", "", "PEM `FILE` with the certificate that a runtime over TCP sees (default: that of init-data)")
	f.StringVar(&o.TLSKey, "tls-key", "", "PEM `FILE` with its key")
	f.StringVar(&o.TLSClientCA, "tls-client-ca", "", "PEM `FILE` with the certificate that the runtime's must end in")
	f.StringVar(&o.StateDir, "state-dir", sandbox.GuestDir, "`DIR` for the pod's state")
	f.StringVar(&o.Runtime, "runtime", "", "OCI runtime `PROGRAM` (default: the first of runc and crun that is installed)")
	f.StringVar(&o.ResolvConf, "resolv-conf", "", "`FILE` to bind the pod's DNS settings over, usually /etc/resolv.conf (default: none)")
	attesterFlags(cmd, &o)
	f.StringVar(&o.InitData, "init-data", "", "`FILE` with the init-data, as TOML or in the block-device form; auto looks for it among the disks, as the init of a machine does (default: none)")
	f.StringVar(&o.KernelCmdline, "kernel-cmdline", "/proc/cmdline", "`FILE` with the measured kernel command line")
	f.StringVar(&o.ConfigFile, "config", "", "configuration `FILE`, of the image (default: agent.config_file of the kernel command line)")
	f.StringVar(&o.LogListen, "log-listen", "", "`ADDRESS` where the log is had, as of --listen but for tcp (default: vsock port agent.log_vport of the kernel command line, else the log is written to standard error)")
	f.StringVar(&o.RESTListen, "rest-listen", rest.DefaultAddress, "loopback `ADDRESS` of the REST API; empty for none")
	f.StringVar(&o.AttestationSocket, "attestation-socket", components.AttestationSocket, "`SOCKET` of the attestation-agent's service; empty for none")
	f.StringVar(&o.DataHubSocket, "data-hub-socket", components.DataHubSocket, "`SOCKET` of the confidential-data-hub's services; empty for none")
	f.BoolVar(&o.LibraryGzip, "library-gzip", false, "decompress gzip layers with the library, not with this project's own decoder (slower)")
	f.StringVar(&o.LogLevel, "log-level", "", "`LEVEL` of the log: debug, info, warn or error (default: agent.log of the kernel command line, else info)")
	return cmd
}

// oneArg wants one argument, and says which.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%w: %s takes %s, and %d arguments were given", errUsage, cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// attesterFlags say what attests for this guest.
func attesterFlags(cmd *cobra.Command, o *agent.Options) {
	f := cmd.Flags()
	f.StringVar(&o.Platform, "platform", attester.Auto, "`PLATFORM` to attest as: auto for the one that is found, else "+attester.Names())
	f.StringVar(&o.TPMDevice, "tpm-device", "", "`PATH` of the TPM's device node or socket (default: the first of /dev/tpmrm0 and /dev/tpm0)")
	f.StringVar(&o.RuntimeLog, "runtime-log", aael.DefaultPath, "`FILE` with the log of runtime events, which is sent with evidence")
	f.StringVar(&o.SimulatedSNP, "simulated-snp", "", "attest with the simulated SNP device in `DIR` (see: measure sim)")
	f.StringVar(&o.SimulatedTDX, "simulated-tdx", "", "attest with the simulated TD in `DIR` (see: measure sim tdx)")
	cmd.MarkFlagsMutuallyExclusive("simulated-snp", "simulated-tdx")
}
