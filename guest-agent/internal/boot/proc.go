package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// firstNamespace is what every kernel calls its first PID namespace
// (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const firstNamespace = "pid:[4026531836]"

// inFirstNamespace asks a proc of its own, which is mounted nowhere: that of
// the machine is not mounted yet, and what is mounted in a container may lie.
func inFirstNamespace() bool {
	dir, err := detachedProc()
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(dir) }()
	var link [64]byte
	n, err := unix.Readlinkat(dir, "self/ns/pid", link[:])
	return err == nil && string(link[:n]) == firstNamespace
}

func detachedProc() (dir int, err error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// commandLine reads the kernel's command line before /proc is there.
func commandLine() (string, error) {
	dir, err := detachedProc()
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat(dir, "cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), "cmdline")
	defer func() { _ = f.Close() }()
	return readAll(f)
}

// maxSmall bounds the files of the image and of the kernel that are read here.
const maxSmall = 64 << 10

var errLong = errors.New("the file is too long")

func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	return readAll(f)
}

func readAll(f *os.File) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(raw) > maxSmall {
		err = fmt.Errorf("%s: %w", f.Name(), errLong)
	}
	return string(raw), err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}
