package agent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// Who waits goes on when all is done, and not before; a second run does nothing.
func TestCompletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, finish := 0, make(chan struct{})
		c := newCompletion(func(context.Context) error { runs++; <-finish; return nil })
		ended, waited := make(chan error, 1), make(chan error, 1)
		go func() { ended <- c.run(t.Context()) }()
		go func() { waited <- c.wait(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("nobody waits: %v", err)
		default:
		}
		close(finish)
		if err := errors.Join(<-ended, <-waited, c.run(t.Context()), c.wait(t.Context())); err != nil || runs != 1 {
			t.Errorf("%d runs: %v", runs, err)
		}
	})
}

// What failed is never taken for done: whoever waits learns why, now and later.
func TestIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure, runs := errors.New("a module does not load"), 0
		c := newCompletion(func(context.Context) error { runs++; return failure })
		waited := make(chan error, 1)
		go func() { waited <- c.wait(t.Context()) }()
		synctest.Wait()
		for _, got := range []error{c.run(t.Context()), <-waited, c.wait(t.Context()), c.run(t.Context())} {
			if !errors.Is(got, failure) {
				t.Error(got)
			}
		}
		if runs != 1 {
			t.Errorf("it is tried %d times", runs)
		}
	})
}

// Nobody waits longer than they have.
func TestWaitsNoLonger(t *testing.T) {
	c := newCompletion(func(context.Context) error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNothingToComplete(t *testing.T) {
	c := newCompletion(nil)
	if err := errors.Join(c.wait(t.Context()), c.run(t.Context())); err != nil {
		t.Error(err)
	}
}

// Where images are kept may take what a complete machine has. Where it cannot be
// complete, the agent starts all the same, to say so.
func TestImagePlaceOfACompleteMachine(t *testing.T) {
	failure := errors.New("a module does not load")
	for name, c := range map[string]struct {
		set  func(*settings.Settings)
		runs int
	}{
		"a directory":     {func(*settings.Settings) {}, 0},
		"a disk":          {func(s *settings.Settings) { s.Agent.ImageDisk = filepath.Join(t.TempDir(), "vdz") }, 1},
		"layers verified": {func(s *settings.Settings) { s.Image.Verity = true }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			runs, s, o := 0, &settings.Settings{}, Options{StateDir: t.TempDir()}
			c.set(s)
			rest := newCompletion(func(context.Context) error { runs++; return failure })
			v := newVolumes(o, s.Agent, slog.New(slog.DiscardHandler))
			if err := v.imagePlace(t.Context(), o, s, rest); err != nil || runs != c.runs || s.Image.Verity {
				t.Errorf("%d runs, %v", runs, err)
			}
			if err := v.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
