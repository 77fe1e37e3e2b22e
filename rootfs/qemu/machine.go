package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/initdata"
)

// Machine is a running machine.
type Machine struct {
	cfg     Config
	vm      *process
	tpm     *process // nil without
	monitor *monitor
}

// Start starts a machine. With [Config.RestoreFrom] it returns once the machine
// goes on from there, else as soon as it runs.
func Start(ctx context.Context, cfg Config) (_ *Machine, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Stop())
		}
	}()
	if err := cfg.writeInitData(); err != nil {
		return nil, fmt.Errorf("init-data: %w", err)
	}
	if err := errors.Join(cfg.writeESP(), cfg.writeVariables()); err != nil {
		return nil, err
	}
	if cfg.TPM != "" {
		if m.tpm, err = startTPM(cfg); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(cfg.Program, cfg.arguments()...) //nolint:gosec,noctx // the caller's program; Stop ends it
	if m.vm, err = start(cmd, cfg.path(fileLog)); err != nil {
		return nil, err
	}
	if m.monitor, err = dialMonitor(ctx, cfg.path(fileMonitor), m.vm); err != nil {
		return nil, err
	}
	cfg.reached("QEMU")
	if cfg.RestoreFrom == "" {
		return m, nil
	}
	if err := m.restore(ctx, cfg.RestoreFrom); err != nil {
		return nil, err
	}
	cfg.reached("state")
	return m, nil
}

func (c Config) reached(phase string) {
	if c.Reached != nil {
		c.Reached(phase)
	}
}

func (c Config) writeInitData() error {
	if c.InitData == "" {
		return nil
	}
	raw, err := os.ReadFile(c.InitData)
	if err != nil {
		return err
	}
	var device bytes.Buffer
	if err := initdata.WriteDevice(&device, raw); err != nil {
		return err
	}
	device.Write(make([]byte, roundUp(device.Len())-device.Len()))
	return os.WriteFile(c.path(fileInitData), device.Bytes(), 0o600)
}

// initDataUnit is what the size of an init-data disk is a multiple of, in bytes:
// documents of about the same length have disks of the same size, as a machine needs
// that goes on from a snapshot with another one.
const initDataUnit = 256 << 10

func roundUp(n int) int { return (n + initDataUnit - 1) / initDataUnit * initDataUnit }

// writeESP puts a unified kernel image where a firmware looks for it on a disk.
// Given by -kernel it would be measured as QEMU changes it, not as it is.
func (c Config) writeESP() error {
	if c.UKI == "" {
		return nil
	}
	image, err := os.ReadFile(c.UKI)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.path(dirESP), "EFI", "BOOT")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "BOOTX64.EFI"), image, 0o600)
}

// Dial connects to the agent's port, of which there is one connection at a time.
// It does not wait for the agent: what is sent before is kept for it.
func (m *Machine) Dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", m.cfg.path(fileChannel))
}

// Socket is where [Machine.Dial] connects to.
func (m *Machine) Socket() string { return m.cfg.path(fileChannel) }

// Console is the file with what the guest wrote to its console.
func (m *Machine) Console() string { return m.cfg.path(fileConsole) }

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.vm.done }

// Wait waits for the guest to switch itself off.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.vm.done:
		return m.vm.failure()
	case <-ctx.Done():
		return fmt.Errorf("the machine still runs: %w", ctx.Err())
	}
}

// Shutdown asks the guest to end, as a person does with Ctrl-Alt-Del, which its
// init gets as a signal, and waits for it.
func (m *Machine) Shutdown(ctx context.Context) error {
	keys := []map[string]string{}
	for _, k := range []string{"ctrl", "alt", "delete"} {
		keys = append(keys, map[string]string{"type": "qcode", "data": k})
	}
	if err := m.monitor.do(ctx, "send-key", map[string]any{"keys": keys}, nil); err != nil {
		return err
	}
	return m.Wait(ctx)
}

// Stop ends the machine as a power cut would, if it still runs, and its TPM.
func (m *Machine) Stop() error {
	var errs []error
	if m.monitor != nil {
		errs = append(errs, m.monitor.close())
		m.monitor = nil
	}
	for _, p := range []*process{m.vm, m.tpm} {
		if p != nil {
			p.kill()
		}
	}
	return errors.Join(errs...)
}

// process is a program that runs beside us, its output in a file.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of Wait; read after done
}

// start runs a program that does not outlive this one.
func start(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to handle
	err = cmd.Start()
	err = errors.Join(err, f.Close()) // the child has its own copy
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// failure says how it ended, with what it wrote; nil if well.
func (p *process) failure() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	const most = 2048
	text, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %w: %s", filepath.Base(p.cmd.Path), p.err, bytes.TrimSpace(text[:min(len(text), most)]))
}

// until tries something until it works, while the process lives.
func (p *process) until(ctx context.Context, timeout time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return errors.Join(fmt.Errorf("%s: the program has ended", what), p.failure())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
