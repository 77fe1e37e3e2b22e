// Package device finds the block devices that the host has plugged in: by their
// place on a bus, as a runtime names them (kata-agent 2.10, 2.13), it returns
// their nodes.
//
// What counts is /sys. Events of the kernel only say when to look again, so none
// can be missed, and a lost one costs a moment. Nothing is locked while a device
// is waited for.
//
// Only whole disks of kinds that a host plugs in can be found. A mapping of
// device-mapper, a loop device or a disk in the guest's memory is the guest's own,
// and what the kernel already uses for something is refused by [Block.Unused].
package device

import (
	"errors"
	"fmt"
)

// ErrTimeout says that a device did not appear.
var ErrTimeout = errors.New("the device did not appear")

// ErrBusy says that the guest uses a device already.
var ErrBusy = errors.New("the device is in use")

// InvalidError is an address that cannot be one. Its text is meant for the host.
type InvalidError struct{ text string }

func (e *InvalidError) Error() string { return e.text }

func invalidf(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }
