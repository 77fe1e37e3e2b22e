package qemu

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// packages are those of Debian and Ubuntu, by the programs in them.
var packages = map[string]string{
	defaultProgram:  "qemu-system-x86",
	"swtpm":         "swtpm",
	"swtpm_setup":   "swtpm-tools",
	"swtpm_localca": "swtpm-tools",
}

// Installed reports the programs that a machine of this configuration needs and
// that are not here, all at once, with the packages that they are in. The error
// wraps [exec.ErrNotFound].
func (c Config) Installed() error {
	c = c.withDefaults()
	programs := []string{c.Program}
	if c.TPM != "" {
		programs = append(programs, "swtpm", "swtpm_setup", "swtpm_localca")
	}
	var all []error
	for _, p := range programs {
		_, err := exec.LookPath(p)
		switch {
		case err == nil:
		case errors.Is(err, exec.ErrNotFound) && packages[filepath.Base(p)] != "":
			all = append(all, fmt.Errorf("%s is not installed: it is in Debian's package %s (%w)", p, packages[filepath.Base(p)], exec.ErrNotFound))
		default:
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
