// Package boot is what the agent does when it is the init of a machine: what has
// to be there before an agent can serve, and the end of the machine after it.
//
// A guest's image holds the agent, an OCI runtime and what those need; no shell,
// no service manager, no udev. So there is nobody else to mount /proc, load the
// drivers or switch the machine off. Everything that configures these steps is
// measured: the image and the kernel command line. What the host hands in beside
// them, the init-data disk, is only found here; package settings compares it with
// the launch before any of it counts.
//
// The steps run once, one after the other, on the main thread, before anything
// else of the agent runs. A step that fails ends the machine: an init that goes
// on without its mounts, root or clock would fail later, and less clearly.
//
// One step is left to the agent, [Machine.Complete]: what only pods need takes
// time, which an agent that serves already has, for the runtime asks whether it is
// there long before it asks for a pod (ADR 42).
package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// searchPath is where the OCI runtime and its tools are looked for; the kernel
// gives an init none.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Machine is what the agent needs to know of a machine that has been set up.
type Machine struct {
	// InitData is the file with the init-data document, as TOML; empty if the
	// host attached none.
	InitData string
	// ResolvConf is the file over which the pod's DNS settings are bound; empty
	// if the image has none.
	ResolvConf string
	keep       func(context.Context) // of a lent address; nil without

	parameters parameters
	log        *slog.Logger
}

// Complete loads the kernel modules that serving does not need, and then lets none
// in ever more, whether or not all of them load. It must be called once, and have
// returned before anything of the host's or of a pod's runs; if it fails, nothing
// may. Modules that must load and do not are a [driver.MissingError].
func (m *Machine) Complete(ctx context.Context) error {
	begin := time.Now()
	failed := loadModules(ctx, always, m.log, listBefore, listAfter)
	if err := lockModules(m.parameters, m.log); err != nil {
		return errors.Join(fmt.Errorf("lock modules: %w", err), failed)
	}
	if failed != nil {
		return fmt.Errorf("load modules: %w", failed)
	}
	m.log.Info("the machine is complete", slog.Duration("took", time.Since(begin)))
	return nil
}

// Is reports whether this process is the init of a machine, started with these
// arguments: process 1 of the first PID namespace, started as init. As process 1
// of a container it must not touch what others have mounted.
func Is(args []string) bool {
	if os.Getpid() != 1 || len(args) == 0 {
		return false
	}
	return (len(args) == 1 || filepath.Base(args[0]) == "init") && inFirstNamespace()
}

// Start sets the machine up. It must be called once, by process 1, before
// anything else is opened, and changes the root of the process.
func Start(ctx context.Context, log *slog.Logger) (*Machine, error) {
	begin := time.Now()
	if err := os.Setenv("PATH", searchPath); err != nil {
		return nil, err
	}
	text, err := commandLine()
	if err != nil {
		return nil, fmt.Errorf("read the kernel command line: %w", err)
	}
	p, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("kernel command line: %w", err)
	}
	m := &Machine{parameters: p, log: log}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"enter the root", func() error { return enterRoot(ctx, p, log) }},
		{"mount what the kernel offers", mountAll},
		{"load modules", func() error { return loadModules(ctx, atOnce, log, listBefore) }},
		{"mount what modules offer", mountLate},
		{"delegate control groups", delegate},
		{"name the machine", setHostname},
		{"set up the network", func() (err error) { m.keep, err = setUpNetwork(ctx, p.network, log); return err }},
		{"set the clock", func() error { return setClock(log) }},
		{"wait for entropy", func() error { return waitForEntropy(log) }},
		{"find the init-data", func() (err error) { m.InitData, err = StoreInitData(); return err }},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if _, err := os.Stat(resolvConf); err == nil {
		m.ResolvConf = resolvConf
	}
	// An init that Ctrl-Alt-Del reaches ends in order, not at once.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		log.Warn("Ctrl-Alt-Del resets this machine at once", slog.Any("err", err))
	}
	log.Info("the machine is set up", slog.Duration("took", time.Since(begin)), slog.Bool("init_data", m.InitData != ""))
	return m, nil
}

const resolvConf = "/etc/resolv.conf"

// End writes everything out and switches the machine off. It returns only where
// that is impossible.
func End(log *slog.Logger) {
	unix.Sync()
	log.Error("the machine cannot be switched off", slog.Any("err", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)))
}

// setHostname takes the name from the image; a pod brings its own.
func setHostname() error {
	name, err := readSmall("/etc/hostname")
	if err != nil {
		return nil //nolint:nilerr // an image need not name the machine
	}
	return unix.Sethostname([]byte(firstLine(name)))
}
