package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"time"
)

// A Module is a kernel module with its parameters, each "name=value".
type Module struct {
	Name       string
	Parameters []string
}

// Bounds of one request.
const (
	maxModules    = 64
	maxParameters = 32
	moduleTimeout = 30 * time.Second
)

var (
	moduleName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	moduleParameter = regexp.MustCompile(`^[A-Za-z0-9_.]{1,64}(=[A-Za-z0-9_.,:/-]{0,256})?$`)
	modprobes       = []string{"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"}
)

// LoadModules loads modules of the guest's own image, by its modprobe.
func (m *Machine) LoadModules(ctx context.Context, modules []Module) error {
	if len(modules) > maxModules {
		return invalidf("%d kernel modules, at most %d are possible", len(modules), maxModules)
	}
	for _, one := range modules {
		if !moduleName.MatchString(one.Name) {
			return invalidf("%.64q is no name of a kernel module", one.Name)
		}
		if len(one.Parameters) > maxParameters {
			return invalidf("%d parameters of a kernel module, at most %d are possible", len(one.Parameters), maxParameters)
		}
		for _, p := range one.Parameters {
			if !moduleParameter.MatchString(p) {
				return invalidf("%.64q is no parameter of a kernel module", p)
			}
		}
	}
	for _, one := range modules {
		if err := m.load(ctx, one); err != nil {
			return fmt.Errorf("load the kernel module %s: %w", one.Name, err)
		}
	}
	return nil
}

func (m *Machine) load(ctx context.Context, one Module) error {
	for _, p := range modprobes {
		program := m.path(p)
		if _, err := os.Stat(program); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append([]string{"--", one.Name}, one.Parameters...)...)
		cmd.Env = []string{"PATH=/sbin:/usr/sbin:/bin:/usr/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return errors.Join(err, errors.New(last(out)))
		}
		return nil
	}
	return fmt.Errorf("no modprobe: %w", ErrUnsupported)
}

// last is the end of a program's output.
func last(out []byte) string {
	const most = 512
	return fmt.Sprintf("%q", out[max(0, len(out)-most):])
}
