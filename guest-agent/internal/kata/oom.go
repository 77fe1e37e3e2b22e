package kata

import (
	"context"
	"errors"
	"log/slog"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/oom"
)

// GetOOMEvent waits for the next container that runs out of memory. Until the
// end it returns no error: a runtime asks again at once after any (kata-agent 1.5).
func (s *Server) GetOOMEvent(ctx context.Context, _ *agent.GetOOMEventRequest) (*agent.OOMEvent, error) {
	ctx, stop := untilDone(ctx, s.destroying)
	defer stop()
	id, err := s.oom.Next(ctx)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	return &agent.OOMEvent{ContainerId: id}, nil
}

// noEvents is GetOOMEvent for a host that is not to know: it waits for the end.
func (s *Server) noEvents(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.destroying:
		return errDestroyed
	}
}

// watchMemory enters the container's kills for lack of memory into the queue.
// Where the kernel does not tell of them, the container runs without.
func (s *Server) watchMemory(id string, pid int) *oom.Watch {
	w, err := oom.Open(pid, func() {
		s.log.Warn("a container ran out of memory", slog.String("container", id))
		s.oom.Add(id)
	})
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, oom.ErrUnsupported) {
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, "nobody will tell when this container runs out of memory", slog.String("container", id), slog.Any("err", err))
		return nil
	}
	return w
}
