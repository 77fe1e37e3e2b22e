package dcap

import (
	"fmt"
	"slices"
)

// Status is what a TCB is worth, under Intel's names, which are those of the
// claim tcb_status (kbs-protocol 16.3).
type Status string

// The statuses. Revoked is never accepted.
const (
	UpToDate                             Status = "UpToDate"
	SWHardeningNeeded                    Status = "SWHardeningNeeded"
	ConfigurationNeeded                  Status = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded    Status = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                            Status = "OutOfDate"
	OutOfDateConfigurationNeeded         Status = "OutOfDateConfigurationNeeded"
	TDRelaunchAdvised                    Status = "TDRelaunchAdvised"
	TDRelaunchAdvisedConfigurationNeeded Status = "TDRelaunchAdvisedConfigurationNeeded"
	Revoked                              Status = "Revoked"
)

// Acceptable returns the statuses that a configuration may accept: all but
// Revoked, best first.
func Acceptable() []Status {
	return []Status{
		UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded,
		TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded,
	}
}

// ParseStatus returns the acceptable status of a name.
func ParseStatus(name string) (Status, error) {
	if s := Status(name); slices.Contains(Acceptable(), s) {
		return s, nil
	}
	return "", fmt.Errorf("a TCB status %q cannot be accepted, want one of %s", name, names(Acceptable()))
}

// valid reports whether Intel gives this status to a level.
func (s Status) valid() error {
	if s == Revoked || s != TDRelaunchAdvised && s != TDRelaunchAdvisedConfigurationNeeded && slices.Contains(Acceptable(), s) {
		return nil
	}
	return fmt.Errorf("a TCB status %q is not known", string(s))
}

// needs is a status in its parts. UpToDate needs nothing.
type needs struct{ update, relaunch, configuration, hardening bool }

func (s Status) needs() needs {
	switch s {
	case SWHardeningNeeded:
		return needs{hardening: true}
	case ConfigurationNeeded:
		return needs{configuration: true}
	case ConfigurationAndSWHardeningNeeded:
		return needs{configuration: true, hardening: true}
	case OutOfDate:
		return needs{update: true}
	case OutOfDateConfigurationNeeded:
		return needs{update: true, configuration: true}
	case TDRelaunchAdvised:
		return needs{relaunch: true}
	case TDRelaunchAdvisedConfigurationNeeded:
		return needs{relaunch: true, configuration: true}
	case UpToDate, Revoked:
	}
	return needs{}
}

// with returns the status of a whole of which both are parts: it needs what
// either needs. No part can make the whole better than another part is.
func (s Status) with(part Status) Status {
	if s == Revoked || part == Revoked {
		return Revoked
	}
	a, b := s.needs(), part.needs()
	plain, configuration := UpToDate, ConfigurationNeeded
	switch {
	case a.update || b.update:
		plain, configuration = OutOfDate, OutOfDateConfigurationNeeded
	case a.relaunch || b.relaunch:
		plain, configuration = TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded
	case a.hardening || b.hardening:
		plain, configuration = SWHardeningNeeded, ConfigurationAndSWHardeningNeeded
	}
	if a.configuration || b.configuration {
		return configuration
	}
	return plain
}

func names[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}
