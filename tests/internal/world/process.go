package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is a program that runs beside the test, its output in a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string

	done chan struct{}
	err  error // of Wait; read after done
	once sync.Once
}

// start runs a program in the background. launch is cmd.Start, or a way to do
// it elsewhere (in a network namespace).
func start(name, log string, cmd *exec.Cmd, launch func(*exec.Cmd) error) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = f, f
	err = launch(cmd)
	err = errors.Join(err, f.Close()) // the child has its own copy
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the program to end, and insists after ten seconds.
func (p *process) stop() error {
	var err error
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
			if code := p.cmd.ProcessState.ExitCode(); code > 0 {
				err = fmt.Errorf("%s: exit status %d; see %s", p.name, code, p.log)
			}
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
			err = fmt.Errorf("%s did not stop when asked; see %s", p.name, p.log)
		}
	})
	return err
}

// until polls a condition while the program lives, for at most 30 seconds.
func (p *process) until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it was %s: %w\n%s", p.name, what, p.err, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s was not %s in time: %w\n%s", p.name, what, ctx.Err(), tail(p.log))
		}
	}
	return nil
}

func tail(log string) string {
	b, err := os.ReadFile(filepath.Clean(log))
	if err != nil {
		return err.Error()
	}
	const most = 4096
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}
