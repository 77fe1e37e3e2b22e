package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/program"
	"github.com/vouchsafe-cc/vouchsafe/image/driver"
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
	maxModuleName = 64 // bytes
	maxParameter  = 320
	moduleTimeout = 30 * time.Second
)

var (
	moduleName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	moduleParameter = regexp.MustCompile(`^[A-Za-z0-9_.]+(=[A-Za-z0-9_.,:/-]*)?$`)
)

// LoadModules loads modules of the guest's own image, by its modprobe. What the
// kernel has already needs none. Without a modprobe, as in images whose modules are
// all loaded when a pod begins, the others are a [fault.DriverMissing].
func (m *Machine) LoadModules(ctx context.Context, modules []Module) error {
	if len(modules) > maxModules {
		return invalidf("%d kernel modules, at most %d are possible", len(modules), maxModules)
	}
	for _, one := range modules {
		if len(one.Name) > maxModuleName || !moduleName.MatchString(one.Name) {
			return invalidf("%.64q is no name of a kernel module", one.Name)
		}
		if len(one.Parameters) > maxParameters {
			return invalidf("%d parameters of a kernel module, at most %d are possible", len(one.Parameters), maxParameters)
		}
		for _, p := range one.Parameters {
			if len(p) > maxParameter || !moduleParameter.MatchString(p) {
				return invalidf("%.64q is no parameter of a kernel module", p)
			}
		}
	}
	for _, one := range modules {
		if len(one.Parameters) == 0 && m.has(one.Name) {
			continue
		}
		if err := m.load(ctx, one); err != nil {
			return fmt.Errorf("load the kernel module %s: %w", one.Name, err)
		}
	}
	return nil
}

func (m *Machine) load(ctx context.Context, one Module) error {
	ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
	defer cancel()
	_, err := program.Below(m.Root).Run(ctx, "modprobe", nil, append([]string{"--", one.Name}, one.Parameters...)...)
	if errors.Is(err, program.ErrAbsent) {
		return driver.Missing(one.Name, err)
	}
	return err
}

// has reports whether a module is live, or built in: then it has no state.
func (m *Machine) has(module string) bool {
	dir := m.path("/sys/module/" + strings.ReplaceAll(module, "-", "_"))
	if _, err := os.Stat(dir); err != nil {
		return false
	}
	state, err := os.ReadFile(dir + "/initstate")
	return errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(state)) == "live"
}
