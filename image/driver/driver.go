// Package driver names what a kernel lacks. A guest's image holds few drivers, and
// no other can be loaded, so whoever built the image must learn which one is
// missing: an error number of a system call does not say it.
package driver

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// MissingError is the cause of a [fault.DriverMissing].
type MissingError struct {
	// Modules are kernel modules, as a recipe names them.
	Modules []string
	// Failed says that they are in the image and do not load.
	Failed bool
	Err    error
}

// Missing is the refusal of what needs a driver that the kernel does not have.
func Missing(module string, err error) *fault.Fault {
	return fault.New(fault.DriverMissing, &MissingError{Modules: []string{module}, Err: err})
}

func (e *MissingError) Error() string { return fmt.Sprintf("%s: %v", e.Public(), e.Err) }

func (e *MissingError) Unwrap() error { return e.Err }

// Public says what is missing and what helps. All of it may be shown to anybody,
// for a guest's image is no secret.
func (e *MissingError) Public() string {
	names := strings.Join(e.Modules, ", ")
	if e.Failed {
		return fmt.Sprintf("kernel modules of the guest's image do not load: %s; its recipe must have some that do, or \"-NAME\" for what pods can do without", names)
	}
	return fmt.Sprintf("the guest's kernel has no %s: the recipe of its image must name that module (kernel.later)", names)
}

// Filesystem explains the error of a mount: mount(2) and fsopen(2) fail with ENODEV
// where the kernel does not know the filesystem. Other errors are as they were.
func Filesystem(name string, err error) error {
	if errors.Is(err, unix.ENODEV) {
		return Missing(name, err)
	}
	return err
}
