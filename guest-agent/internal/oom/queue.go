package oom

import (
	"context"
	"sync"
)

// Queue keeps what a runtime was not told yet. The zero value is ready.
type Queue struct {
	mu      sync.Mutex
	waiting []string
	more    chan struct{} // closed when something comes
}

// maxWaiting bounds the events that nobody fetches; the oldest go first.
const maxWaiting = 1024

// Add enters that a container ran out of memory. One that waits to be told of
// already is not entered twice.
func (q *Queue) Add(container string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiting {
		if w == container {
			return
		}
	}
	if len(q.waiting) == maxWaiting {
		q.waiting = q.waiting[1:]
	}
	q.waiting = append(q.waiting, container)
	if q.more != nil {
		close(q.more)
		q.more = nil
	}
}

// Next waits for an event and takes it. A caller that has gone away takes none.
func (q *Queue) Next(ctx context.Context) (container string, err error) {
	for {
		q.mu.Lock()
		if err := ctx.Err(); err != nil {
			q.mu.Unlock()
			return "", err
		}
		if len(q.waiting) > 0 {
			container, q.waiting = q.waiting[0], q.waiting[1:]
			q.mu.Unlock()
			return container, nil
		}
		if q.more == nil {
			q.more = make(chan struct{})
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}
