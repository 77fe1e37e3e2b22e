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

// What failed is never taken for done.
func TestIncomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("a module does not load")
		c := newCompletion(func(context.Context) error { return failure })
		if err := c.run(t.Context()); !errors.Is(err, failure) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() { waited <- c.wait(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("%v after a failure", err)
		}
	})
}

func TestNothingToComplete(t *testing.T) {
	c := newCompletion(nil)
	if err := errors.Join(c.wait(t.Context()), c.run(t.Context())); err != nil {
		t.Error(err)
	}
}

// The disk for images is encrypted by what a complete machine has.
func TestImageDiskOfACompleteMachine(t *testing.T) {
	failure := errors.New("a module does not load")
	incomplete := func(context.Context) error { return failure }
	s := &settings.Settings{}
	o := Options{StateDir: t.TempDir()}
	v := newVolumes(o, s.Agent, slog.New(slog.DiscardHandler))
	if err := v.mountImageDisk(t.Context(), o, s, incomplete); err != nil {
		t.Errorf("without a disk: %v", err)
	}
	s.Agent.ImageDisk = filepath.Join(t.TempDir(), "vdz")
	if err := v.mountImageDisk(t.Context(), o, s, incomplete); !errors.Is(err, failure) {
		t.Errorf("with a disk: %v", err)
	}
	if err := v.close(t.Context()); err != nil {
		t.Error(err)
	}
}
