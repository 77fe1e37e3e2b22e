package pause

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	tests := map[string]struct {
		d     time.Duration
		until time.Duration // when the context ends; 0: it has ended, negative: never
		err   error
		took  time.Duration
	}{
		"waits":                           {time.Minute, -1, nil, time.Minute},
		"ends early":                      {time.Hour, time.Minute, context.DeadlineExceeded, time.Minute},
		"not after it":                    {time.Minute, time.Hour, nil, time.Minute},
		"has ended":                       {time.Hour, 0, context.DeadlineExceeded, 0},
		"nothing":                         {0, -1, nil, 0},
		"less than nothing":               {-time.Second, -1, nil, 0},
		"nothing of one that has ended":   {0, 0, context.DeadlineExceeded, 0},
		"less, of one that has ended too": {-time.Second, 0, context.DeadlineExceeded, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.until >= 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.until)
					defer cancel()
				}
				begin := time.Now()
				err := For(ctx, tt.d)
				if took := time.Since(begin); !errors.Is(err, tt.err) || took != tt.took {
					t.Errorf("got %v after %v, want %v after %v", err, took, tt.err, tt.took)
				}
			})
		})
	}
}

// Somebody who gives up is not kept, and leaves no timer behind that would
// keep a bubble of synctest from ending.
func TestForGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, giveUp := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- For(ctx, time.Hour) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("did not wait: %v", err)
		default:
		}
		begin := time.Now()
		giveUp()
		if err := <-done; !errors.Is(err, context.Canceled) || time.Since(begin) != 0 {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}
