package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/driver"
)

// The lists of kernel modules lie with the modules, in the directory of the
// kernel's release: a root that another kernel mounts, as that of a Kata runtime
// may, holds none that fit. A list has one absolute path a line, each after those
// that it depends on. One after "-" may fail, as the driver of another vendor's
// platform does, or what the processor is too old for; what needs it says so.
// Whoever builds the image resolves the dependencies, so that a guest needs
// neither an index nor modprobe.
const (
	listBefore = "load"  // loaded before the agent serves: what it needs for that, as far as its devices are there
	listAfter  = "later" // loaded while it does: what pods need
)

// modulesDir has a directory for each release of the kernel.
const modulesDir = "/usr/lib/modules"

// modulesDisabled ends the loading of modules until the next boot.
const modulesDisabled = "/proc/sys/kernel/modules_disabled"

// loadModules loads what lists name and is wanted. What is loaded already, as by
// the initramfs, is not looked at again. Of modules that must load and do not, all
// are named, in a [driver.MissingError].
func loadModules(ctx context.Context, wanted func(module) bool, log *slog.Logger, names ...string) error {
	begin := time.Now()
	var all []module
	for _, name := range names {
		list, err := readList(name)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	err := loadEach(ctx, slices.DeleteFunc(all, func(m module) bool { return !wanted(m) || m.loaded() }), loadModule, log)
	log.Debug("modules", slog.Any("lists", names), slog.Duration("took", time.Since(begin)))
	return err
}

func readList(name string) ([]module, error) {
	file, err := listFile(name)
	if err != nil {
		return nil, err
	}
	text, err := readSmall(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	list, err := parseModules(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return list, nil
}

// loadEach goes on after one that fails: whoever made the image learns of all of
// them at once, and what does not need it is there.
func loadEach(ctx context.Context, list []module, load func(file string) error, log *slog.Logger) error {
	var missing []string
	var errs []error
	for _, m := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := load(m.file)
		switch {
		case err == nil:
		case m.optional:
			level := slog.LevelInfo
			if errors.Is(err, unix.ENODEV) { // no such device, or processor: what it may be absent for
				level = slog.LevelDebug
			}
			log.Log(ctx, level, "a module was not loaded", slog.String("file", filepath.Base(m.file)), slog.Any("err", err))
		default:
			missing = append(missing, m.name())
			errs = append(errs, fmt.Errorf("%s: %w", m.file, err))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &driver.MissingError{Modules: missing, Failed: true, Err: errors.Join(errs...)}
}

func listFile(name string) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return filepath.Join(modulesDir, unix.ByteSliceToString(u.Release[:]), name), nil
}

// lockModules keeps every module out that is not there yet: neither the host, by
// a device that it plugs, nor a container can bring one in.
func lockModules(p parameters, log *slog.Logger) error {
	if p.keepModules {
		log.Warn("vouchsafe.insecure_module_loading: kernel modules can be loaded as long as this machine runs")
		return nil
	}
	err := os.WriteFile(modulesDisabled, []byte("1"), 0)
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

// name is what the kernel calls the module.
func (m module) name() string {
	name, _, _ := strings.Cut(filepath.Base(m.file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

func (m module) loaded() bool {
	state, err := readSmall(filepath.Join("/sys/module", m.name(), "initstate"))
	return err == nil && firstLine(state) == "live"
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
