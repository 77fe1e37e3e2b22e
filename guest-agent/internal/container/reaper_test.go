package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// orphan starts a process whose parent goes away, and returns its pid.
func orphan(script string) (int, error) {
	out, err := exec.Command(os.Args[0], orphanArgument, script).Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

func TestReaperNeedsTheMainThread(t *testing.T) {
	errs := make(chan error)
	go func() { errs <- reaper.Run(context.Background()) }()
	if err := <-errs; !errors.Is(err, errNotMain) {
		t.Fatalf("Run elsewhere: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	tests := []struct {
		name, script string
		want         int
	}{
		{"gone before it is claimed", "exit 5", 5},
		{"outlives its parent", "sleep 0.2; exit 6", 6},
		{"killed", "kill -9 $$", 137},
		{"terminated", "kill -15 $$", 143},
		{"succeeds", "true", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, exit, err := reaper.Adopt(func() (int, error) { return orphan(tt.script) })
			if err != nil {
				t.Fatal(err)
			}
			if got := <-exit; got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

// A process that someone else waits for cannot be adopted.
func TestAdoptRefusesStrangers(t *testing.T) {
	if _, _, err := reaper.Adopt(func() (int, error) { return os.Getppid(), nil }); !errors.Is(err, unix.ECHILD) {
		t.Fatalf("got %v", err)
	}
}

func TestAdoptFails(t *testing.T) {
	boom := errors.New("boom")
	if _, _, err := reaper.Adopt(func() (int, error) { return 0, boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	if reaper.adopting != 0 {
		t.Errorf("%d adoptions under way", reaper.adopting)
	}
}

// Children of os/exec and orphans die in great numbers at the same time. Each
// command must get its own status, each claimed orphan its own, and no zombie
// may stay.
func TestReaperTakesOrphansOnly(t *testing.T) {
	const rounds, workers = 15, 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				want := (w*rounds + i) % 100
				err := exec.Command("sh", "-c", fmt.Sprintf("sh -c true & exit %d", want)).Run()
				got := 0
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					got = exit.ExitCode()
				} else if err != nil {
					t.Errorf("a command lost its status: %v", err)
				}
				if got != want {
					t.Errorf("status %d, want %d", got, want)
				}
			}
		})
		wg.Go(func() {
			for i := range rounds {
				want := (w + i) % 100
				_, exit, err := reaper.Adopt(func() (int, error) { return orphan(fmt.Sprintf("exit %d", want)) })
				if err != nil {
					t.Errorf("adopt: %v", err)
					return
				}
				if got := <-exit; got != want {
					t.Errorf("orphan's status %d, want %d", got, want)
				}
			}
		})
	}
	wg.Wait()
	// A last orphan: when its status has come, the reaper has been around.
	_, exit, err := reaper.Adopt(func() (int, error) { return orphan("sleep 0.3") })
	if err != nil {
		t.Fatal(err)
	}
	<-exit
	if z := zombies(t); len(z) > 0 {
		t.Errorf("zombies left: %v", z)
	}
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	if len(reaper.claimed)+len(reaper.early) != 0 {
		t.Errorf("left behind: claimed %v, early %v", reaper.claimed, reaper.early)
	}
}

// zombies lists dead children of this process.
func zombies(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		if fields[0] == "Z" && fields[1] == strconv.Itoa(unix.Getpid()) {
			found = append(found, pid)
		}
	}
	return found
}
