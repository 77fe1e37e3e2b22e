// Package pause waits for a while, or until nobody wants to wait any more.
//
// Whoever asks again after a failure waits in between. Each such place takes a
// function of the shape of [For], so that a test can put its own in its stead, or
// runs in testing/synctest, whose time this package goes by too.
package pause

import (
	"context"
	"time"
)

// For waits for d. It returns early, with the context's error, when ctx ends; of a
// context that has ended already no part of d is waited for, and a d of zero or
// less is no wait.
func For(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
