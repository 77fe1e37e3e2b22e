package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleList is the file of the image that names the kernel modules to load: one
// absolute path a line, each after those that it depends on. One after "-" may
// fail, as the driver of another vendor's platform does, or what the processor is
// too old for; what needs it says so. Whoever builds the image resolves the
// dependencies, so that a guest needs neither an index nor modprobe.
const moduleList = "/usr/lib/modules/load"

// modulesDisabled ends the loading of modules until the next boot.
const modulesDisabled = "/proc/sys/kernel/modules_disabled"

// loadModules loads the listed modules, and then none ever more: neither the
// host, by a device that it plugs, nor a container can bring one in.
func loadModules(p parameters, log *slog.Logger) error {
	text, err := readSmall(moduleList)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	list, err := parseModules(text)
	if err != nil {
		return fmt.Errorf("%s: %w", moduleList, err)
	}
	for _, m := range list {
		err := loadModule(m.file)
		if err != nil && !m.optional {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		if err != nil {
			log.Debug("a module was not loaded", slog.String("file", filepath.Base(m.file)), slog.Any("err", err))
		}
	}
	if p.keepModules {
		log.Warn("vouchsafe.insecure_module_loading: kernel modules can be loaded as long as this machine runs")
		return nil
	}
	err = os.WriteFile(modulesDisabled, []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without modules
	}
	return err
}

type module struct {
	file     string
	optional bool
}

func parseModules(text string) (list []module, err error) {
	for line := range strings.Lines(text) {
		file, optional := strings.CutPrefix(strings.TrimSpace(line), "-")
		if !filepath.IsAbs(file) || filepath.Clean(file) != file {
			return nil, fmt.Errorf("%.128q is no absolute path", file)
		}
		list = append(list, module{file, optional})
	}
	return list, nil
}

// initCompressed is MODULE_INIT_COMPRESSED_FILE (include/uapi/linux/module.h).
const initCompressed = 4

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags := 0
	if filepath.Ext(file) != ".ko" {
		flags = initCompressed
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
