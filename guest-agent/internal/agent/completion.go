package agent

import "context"

// completion is what remains to be done to the machine when the agent serves
// already. Whatever a pod could need of it waits for it.
type completion struct {
	do   func(context.Context) error
	done chan struct{} // closed when all is done
}

// newCompletion takes what is to be done; nil for nothing.
func newCompletion(do func(context.Context) error) *completion {
	c := &completion{do, make(chan struct{})}
	if do == nil {
		close(c.done)
	}
	return c
}

// run does it, unless it is done. It must not be called twice at a time.
func (c *completion) run(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := c.do(ctx); err != nil {
		return err
	}
	close(c.done)
	return nil
}

// wait returns nil once it is done. After a failure it waits until ctx is done,
// for the agent ends then.
func (c *completion) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
