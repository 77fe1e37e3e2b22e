package main

import (
	"fmt"
	"syscall"
)

// keepMemory keeps the PIN and what was opened out of core dumps, and other
// processes of the same user out of the memory (prctl(2), PR_SET_DUMPABLE): a
// library of strangers that crashes would otherwise write both to a disk.
func keepMemory() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return fmt.Errorf("keep the memory out of core dumps: %w", errno)
	}
	return nil
}
