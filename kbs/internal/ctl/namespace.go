package ctl

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// asOwnRoot runs the same command again in a user namespace, in which this user
// is root and nobody else is there. What it prints and how it ends are the
// command's.
func (c *cli) asOwnRoot(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", c.args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdio.In, c.stdio.Out, c.stdio.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it tidies up
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return &failure{err: err, exit: exit.ExitCode(), told: true}
	}
	if err != nil {
		return usagef("to unpack an image needs root, or a user namespace, which could not be had: %w", err).
			hint("image pull REF oci:DIR needs neither")
	}
	return nil
}

// aloneInNamespace reports whether this process is root where no other user
// exists, so that nothing can be given to anybody else.
func aloneInNamespace() (bool, error) {
	raw, err := os.ReadFile("/proc/self/uid_map") // user_namespaces(7): inside, outside, length
	if err != nil {
		return false, err
	}
	words := strings.Fields(string(raw))
	return len(words) == 3 && words[2] == "1", nil
}
