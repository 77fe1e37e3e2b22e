package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

const runHelp = `Run boots an image in QEMU, for a try or a test: a Kata runtime starts its
machines itself. It needs no root, and no KVM: where a kernel does not come up
under KVM, the processor is emulated.

The agent is reached over a socket of this machine, which run prints; one program
at a time may be connected. What the guest writes to its console goes to the
standard output. Run ends with the guest; Ctrl-C asks the guest to end.

With --tpm the guest has a software TPM, whose state lies in the folder and is
made there the first time, by a manufacturer in the folder above (see: measure
enroll); with --firmware the firmware measures into it what it starts.

An image that firmware starts (forms uki, disk and verity-disk) needs --firmware. With
--variables the firmware has a store of variables beside it, a copy of a blank one,
and with --secureboot-variables keys in it: then only what is signed for them starts.
The guest's system can change them, unless --smm keeps it from that, which the firmware
must be built for.

Words that run adds to the command line are measured like all others:
agent.server_addr, and with --network the guest's address.`

const runExample = `  rootfs run image --init-data initdata.toml
  rootfs run image --init-data initdata.toml --firmware /usr/share/ovmf/OVMF.fd --tpm machines/tpm1 --network
  rootfs run image --firmware /usr/share/OVMF/OVMF_CODE_4M.secboot.fd --smm --variables /usr/share/OVMF/OVMF_VARS_4M.fd --secureboot-variables keys`

type runFlags struct {
	cfg         qemu.Config
	appended    string
	accelerator string
	keys        string // folder with the variables of Secure Boot
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run IMAGE", Short: "Boot an image in QEMU", Long: runHelp, Example: runExample, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.runImage(cmd.Context(), args[0], f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.cfg.InitData, "init-data", "", "`FILE` with the init-data, as TOML")
	s.StringVar(&f.cfg.Firmware, "firmware", "", "`FILE` with an OVMF (default: QEMU's own BIOS, which measures nothing)")
	s.StringVar(&f.cfg.Variables, "variables", "", "`FILE` with a blank store of variables for the firmware")
	s.StringVar(&f.keys, "secureboot-variables", "", "`DIR` with PK.esl, KEK.esl, db.esl and perhaps dbx.esl to enrol, so that Secure Boot is on")
	s.BoolVar(&f.cfg.SMM, "smm", false, "let the firmware alone change its variables (System Management Mode)")
	s.StringVar(&f.cfg.TPM, "tpm", "", "`DIR` of a software TPM (default: none)")
	s.BoolVar(&f.cfg.Network, "network", false, "give the guest a network, with this machine's loopback services at "+qemu.Gateway)
	s.StringVar(&f.appended, "append", "", "`TEXT` to put behind the image's command line")
	s.IntVar(&f.cfg.Memory, "memory", 0, "`MIB` of memory (default 512)")
	s.IntVar(&f.cfg.VCPUs, "vcpus", 0, "`NUMBER` of processors (default 1)")
	s.StringVar(&f.accelerator, "accelerator", "auto", "`WHAT` runs the processor: kvm, tcg, or auto for kvm where it works")
	return cmd
}

func (c *cli) runImage(ctx context.Context, image string, f runFlags) (err error) {
	cfg := f.cfg
	if err := cfg.Open(image); err != nil {
		return err
	}
	if err := cfg.Installed(); err != nil {
		return err
	}
	if cfg.Kernel == "" && f.appended != "" {
		return errors.New("the command line of a unified kernel image is part of it: --append changes nothing")
	}
	if cfg.Kernel != "" {
		cfg.CommandLine = f.commandLine(cfg)
	}
	if f.keys != "" {
		if cfg.SecureBoot, err = boot.ReadSecureBoot(variablesIn(f.keys, nil)); err != nil {
			return err
		}
	}
	if cfg.Accelerator = f.accelerator; f.accelerator == "auto" {
		cfg.Accelerator = qemu.Accelerator(ctx, "", cfg.Kernel)
	}
	if err := manufacture(ctx, cfg.TPM); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp("", "guest-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	m, err := qemu.Start(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }()
	c.say("%s; the agent is at unix://%s", cfg.Accelerator, m.Socket())
	return c.follow(ctx, m)
}

func (f runFlags) commandLine(cfg qemu.Config) string {
	words := []string{cfg.CommandLine}
	if !strings.Contains(cfg.CommandLine, "agent.server_addr=") {
		words = append(words, "agent.server_addr=virtio-serial://"+qemu.Channel)
	}
	if cfg.Network && !strings.Contains(" "+cfg.CommandLine, " ip=") {
		words = append(words, qemu.Network)
	}
	if f.appended != "" {
		words = append(words, f.appended)
	}
	return strings.Join(words, " ")
}

// manufacture makes a TPM where there is none.
func manufacture(ctx context.Context, state string) error {
	if state == "" {
		return nil
	}
	if _, err := os.Stat(state); err == nil {
		return nil
	}
	return qemu.Manufacture(ctx, state, filepath.Join(filepath.Dir(filepath.Clean(state)), "manufacturer"))
}

// How often the console is looked at, and how long a guest may take to end.
const (
	consoleEvery = 50 * time.Millisecond
	endTimeout   = 30 * time.Second
)

// follow prints the console until the guest ends, or is asked to.
func (c *cli) follow(ctx context.Context, m *qemu.Machine) error {
	console, err := os.Open(m.Console())
	if err != nil {
		return err
	}
	defer func() { _ = console.Close() }()
	tick := time.NewTicker(consoleEvery)
	defer tick.Stop()
	for {
		if _, err := io.Copy(c.out, console); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-m.Done():
			_, err := io.Copy(c.out, console)
			return errors.Join(err, m.Wait(ctx))
		case <-ctx.Done():
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			if err := m.Shutdown(bounded); err != nil {
				return fmt.Errorf("the guest does not end: %w", err)
			}
			_, err := io.Copy(c.out, console)
			return err
		}
	}
}
