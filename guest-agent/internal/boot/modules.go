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

// ModuleList is the file of the image that names the kernel modules to load: one
// absolute path a line, each after those that it depends on; lines that begin
// with # are comments. Whoever builds the image resolves the dependencies, so
// that a guest needs neither an index nor modprobe. Modules may be compressed,
// if the kernel takes them so (CONFIG_MODULE_DECOMPRESS).
const ModuleList = "/etc/vouchsafe/modules"

// modulesDisabled ends the loading of modules until the next boot.
const modulesDisabled = "/proc/sys/kernel/modules_disabled"

// loadModules loads the listed modules, and then none ever more: neither the
// host, by a device that it plugs, nor a container can bring one in. A module
// that the machine has no use for, as the driver of another vendor's platform,
// says so and is skipped; what needs it fails by itself.
func loadModules(p parameters, log *slog.Logger) error {
	text, err := readSmall(ModuleList)
	if errors.Is(err, os.ErrNotExist) {
		log.Debug("the image lists no modules")
	} else if err != nil {
		return err
	}
	files, err := parseModules(text)
	if err != nil {
		return fmt.Errorf("%s: %w", ModuleList, err)
	}
	for _, file := range files {
		if err := loadModule(file); err != nil {
			log.Info("a module was not loaded", slog.String("file", filepath.Base(file)), slog.Any("err", err))
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

func parseModules(text string) (files []string, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !filepath.IsAbs(line) || filepath.Clean(line) != line {
			return nil, fmt.Errorf("%.128q is no absolute path", line)
		}
		files = append(files, line)
	}
	return files, nil
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
