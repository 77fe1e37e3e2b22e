package broker

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/limit"
)

func rates(l config.Limits) limit.Rates {
	r := limit.Rates{Burst: time.Duration(l.Burst) * time.Second, Addresses: l.Addresses, Proxies: l.Proxies()}
	r.PerSecond[limit.Auth] = float64(l.AuthPerSecond)
	r.PerSecond[limit.Attest] = float64(l.AttestPerSecond)
	r.PerSecond[limit.Failures] = float64(l.FailuresPerSecond)
	return r
}

func width(l config.Limits) limit.Width {
	w := limit.Width{Running: l.AttestConcurrency, Waiting: l.AttestQueue, Wait: l.QueueWait()}
	if w.Running == 0 {
		w.Running = runtime.GOMAXPROCS(0)
	}
	return w
}

// explaining is the width of the gate that explanations of denied releases pass:
// half of that for evidence, so that no storm of denials takes more than half
// of the CPUs from the releases, which wait for nobody. It is a gate of its own,
// because denials must not hold up those who attest.
func explaining(l config.Limits) limit.Width {
	w := width(l)
	w.Running = max(1, w.Running/2)
	return w
}

// flushRefusals counts repeated refusals into the audit log, of the tenants in
// use.
func (b *Broker) flushRefusals(ctx context.Context) error {
	var failed []error
	for _, r := range b.tenants.pool.Held() {
		failed = append(failed, r.refusals.Flush(ctx))
	}
	return errors.Join(failed...)
}
