package main

import (
	"syscall"
	"testing"
)

func TestKeepMemory(t *testing.T) {
	dumpable := func() uintptr {
		was, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return was
	}
	before := dumpable()
	t.Cleanup(func() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, before, 0) })
	if err := keepMemory(); err != nil || dumpable() != 0 {
		t.Errorf("%v, dumpable %d", err, dumpable())
	}
}
