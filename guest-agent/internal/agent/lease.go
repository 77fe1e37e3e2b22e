package agent

import (
	"context"
	"log/slog"
	"sync"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

func newKeeper(s settings.Leases, h *hub.Hub, stop func(ctx context.Context, id string) error, log *slog.Logger) (*lease.Keeper, error) {
	onEnd, err := lease.ParseAction(s.OnEnd)
	if err != nil {
		return nil, err
	}
	return lease.New(lease.Config{
		Interval: s.Interval, Grace: s.Grace, OnEnd: onEnd, Renew: h.Renew, Forget: h.Forget, Stop: stop, Logger: log,
	}), nil
}

// keep makes the keeper work until what it returns is called.
func keep(ctx context.Context, k *lease.Keeper) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { k.Run(ctx) })
	return func() {
		stop()
		running.Wait()
	}
}
