package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

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
)

// stdio is where data and messages go.
type stdio struct{ out, err io.Writer }

// errUsage marks errors in how the command was called.
var errUsage = errors.New("usage")

// run executes the command line and returns its exit code. The machine is the one
// that this process is the init of; nil for none.
func run(ctx context.Context, args []string, io stdio, m *boot.Machine) int {
	cmd := command(io, m)
	cmd.SetArgs(args)
	cmd.SetOut(io.out)
	cmd.SetErr(io.err)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return fault.ExitOK
	}
	_, _ = fmt.Fprintf(io.err, "guest-agent: %v\n", err)
	if errors.Is(err, errUsage) {
		_, _ = fmt.Fprintln(io.err, "  hint     guest-agent --help")
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Code.Exit()
	}
	return fault.ExitUsage
}

func command(io stdio, m *boot.Machine) *cobra.Command {
	root := &cobra.Command{
		Use:           "guest-agent",
		Short:         "The agent of a confidential guest",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          withoutCommand,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(serveCommand(io, m), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(io.out, "guest-agent", version())
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

func serveCommand(io stdio, m *boot.Machine) *cobra.Command {
	o := agent.Options{Version: version(), Stderr: io.err}
	if m != nil {
		o.Complete = m.Complete
	}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the container runtime until the pod ends",
		Long: "Serves the Kata agent protocol for one pod, and the REST API for its workloads.\n" +
			"It ends when the runtime destroys the sandbox, or on SIGTERM. Needs root.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.PauseBinary, err = os.Executable(); err != nil {
				return err
			}
			return agent.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Listen, "listen", "", "address for the runtime: unix:///PATH, unix://@NAME, virtio-serial://NAME, vsock://CID:PORT or tcp://IP:PORT with mutual TLS (default: agent.server_addr of the kernel command line, else vsock://-1:1024)")
	f.StringVar(&o.TLSCert, "tls-cert", "", "PEM file with the certificate that a runtime over TCP sees (default: that of init-data)")
	f.StringVar(&o.TLSKey, "tls-key", "", "PEM file with its key")
	f.StringVar(&o.TLSClientCA, "tls-client-ca", "", "PEM file with the certificate that the runtime's must end in")
	f.StringVar(&o.StateDir, "state-dir", sandbox.GuestDir, "directory for the pod's state")
	f.StringVar(&o.Runtime, "runtime", "", "OCI runtime program (default: the first of runc and crun that is installed)")
	f.StringVar(&o.ResolvConf, "resolv-conf", "", "file to bind the pod's DNS settings over, usually /etc/resolv.conf (default: none)")
	attesterFlags(cmd, &o)
	f.StringVar(&o.InitData, "init-data", "", "file with the init-data, as TOML or in the block-device form (default: none)")
	f.StringVar(&o.KernelCmdline, "kernel-cmdline", "/proc/cmdline", "file with the measured kernel command line")
	f.StringVar(&o.ConfigFile, "config", "", "configuration file, of the image (default: agent.config_file of the kernel command line)")
	f.StringVar(&o.LogListen, "log-listen", "", "address where the log is had, as of --listen but for tcp (default: vsock port agent.log_vport of the kernel command line, else the log is written to standard error)")
	f.StringVar(&o.RESTListen, "rest-listen", rest.DefaultAddress, "loopback address of the REST API; empty for none")
	f.StringVar(&o.AttestationSocket, "attestation-socket", components.AttestationSocket, "socket of the attestation-agent's service; empty for none")
	f.StringVar(&o.DataHubSocket, "data-hub-socket", components.DataHubSocket, "socket of the confidential-data-hub's services; empty for none")
	f.BoolVar(&o.LibraryGzip, "library-gzip", false, "decompress gzip layers with the library, not with this project's own decoder (slower)")
	f.StringVar(&o.LogLevel, "log-level", "", "debug, info, warn or error (default: agent.log of the kernel command line, else info)")
	return cmd
}

// version is that of the build, or "devel".
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// attesterFlags say what attests for this guest.
func attesterFlags(cmd *cobra.Command, o *agent.Options) {
	f := cmd.Flags()
	f.StringVar(&o.Platform, "platform", attester.Auto, "platform to attest as: auto for the one that is found, else "+attester.Names())
	f.StringVar(&o.TPMDevice, "tpm-device", "", "device node, or socket, of the TPM (default: the first of /dev/tpmrm0 and /dev/tpm0)")
	f.StringVar(&o.RuntimeLog, "runtime-log", aael.DefaultPath, "log of runtime events, which is sent with evidence")
	f.StringVar(&o.SimulatedSNP, "simulated-snp", "", "attest with the simulated SNP device in this directory (see: measure sim)")
	f.StringVar(&o.SimulatedTDX, "simulated-tdx", "", "attest with the simulated TD in this directory (see: measure sim tdx)")
	cmd.MarkFlagsMutuallyExclusive("simulated-snp", "simulated-tdx")
}
