// Package pause is the program of the pause container: the first process of a
// pod, which keeps its namespaces alive and does nothing else. The agent's own
// binary contains it, so a guest needs no pause image.
package pause

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Run waits for SIGTERM or SIGINT and returns the exit code. In a pod whose
// containers share one pid namespace it is PID 1, so it also collects the
// processes that lose their parents. It starts none itself.
func Run() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)
	for s := range signals {
		if s != unix.SIGCHLD {
			return 0
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && err != unix.EINTR {
				break
			}
		}
	}
	return 0
}
