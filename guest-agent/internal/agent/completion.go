package agent

import "context"

// completion is what remains to be done to the machine when the agent serves
// already. Whatever a pod could need of it waits for it. Where it fails the agent
// goes on, so that a runtime learns of the reason, and carries nothing out.
type completion struct {
	do   func(context.Context) error
	done chan struct{} // closed when nothing is left to be done
	err  error         // why not all was; set before done is closed
}

// newCompletion takes what is to be done; nil for nothing.
func newCompletion(do func(context.Context) error) *completion {
	c := &completion{do: do, done: make(chan struct{})}
	if do == nil {
		close(c.done)
	}
	return c
}

// run does it, once. It must not be called twice at a time.
func (c *completion) run(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	defer close(c.done)
	c.err = c.do(ctx)
	return c.err
}

// wait returns nil once it is done, and after a failure why it cannot be.
func (c *completion) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
