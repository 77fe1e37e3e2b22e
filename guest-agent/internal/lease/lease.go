// Package lease asks again, all the time that a pod runs, for what the pod was
// lent: the values of sealed secrets and the keys of volumes. Asking again is how
// a lease is renewed (the broker's ADR 32) and how it is learnt that one ended: a
// new attestation, and the same request under the same policies. So it needs
// nothing of a broker that the field's do not have, and a value that was changed
// at the broker arrives on the way.
//
// A refusal ends a lease at once. Silence does not, unless the owner set a bound
// for it: a broker that is down must not take the pods with it.
//
// What an end does is the owner's choice. Whatever is taken back comes back when
// the broker says yes again, but not a container that was stopped, nor a volume
// that was cut off.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// Action is what the end of a lease does.
type Action string

// The actions. Each does what those before it do.
const (
	Keep Action = "keep" // say so in the log, and to the broker
	Drop Action = "drop" // forget tokens, take values out of files
	Stop Action = "stop" // kill the container that has it, cut a volume off
)

// ParseAction reads an action; "" is [Drop].
func ParseAction(s string) (Action, error) {
	switch a := Action(s); a {
	case "":
		return Drop, nil
	case Keep, Drop, Stop:
		return a, nil
	}
	return "", fmt.Errorf("%.40q: want %s, %s or %s", s, Keep, Drop, Stop)
}

// Lease is something that a container has from the broker.
type Lease struct {
	Holder string // the container's ID; empty if it is the whole pod's, which has Cut
	What   string // for the log; names nothing of the owner's
	// Ask asks the broker for it again, and puts a value that changed in its
	// place. The error is a *fault.Fault.
	Ask func(ctx context.Context) error
	// Drop takes back what can be taken back. It is nil if nothing can: the value
	// of a variable is the process's own.
	Drop func() error
	// Cut is what [Stop] does where there is no container to kill. What was cut
	// stays so.
	Cut func() error
}

// Config says when to ask and what to do.
type Config struct {
	Interval time.Duration // between two rounds, give or take a tenth; 0: never
	Grace    time.Duration // a broker's silence that ends a lease; 0: none does
	OnEnd    Action
	// Renew attests anew, if there was an attestation. The error is a *fault.Fault.
	Renew func(ctx context.Context) error
	// Forget drops tokens and their keys.
	Forget func()
	// Stop kills a container.
	Stop   func(ctx context.Context, holder string) error
	Logger *slog.Logger
}

// Keeper keeps the leases of a pod. It is safe for concurrent use.
type Keeper struct {
	cfg Config

	mu    sync.Mutex
	held  map[*held]struct{}
	order []*held
}

// held is a lease and what became of it. Only rounds write it.
type held struct {
	Lease
	good  time.Time // when the broker last said yes
	ended bool
}

// New returns a keeper; [Keeper.Run] makes it work.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg, held: map[*held]struct{}{}} }

// Hold enters a lease that was just had. What it returns takes the lease out
// again, and does nothing the second time.
func (k *Keeper) Hold(l Lease) (release func()) {
	h := &held{Lease: l, good: time.Now()}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[h] = struct{}{}
	k.order = append(k.order, h)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.held, h)
		k.order = nil // made anew by the next round
		for one := range k.held {
			k.order = append(k.order, one)
		}
	}
}

// Run asks in rounds until ctx is done. Pods that were started together do not
// ask together: each round comes at a time of its own.
func (k *Keeper) Run(ctx context.Context) {
	if k.cfg.Interval <= 0 {
		<-ctx.Done()
		return
	}
	for {
		t := time.NewTimer(around(k.cfg.Interval))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		k.round(ctx)
	}
}

// around is an interval, give or take a tenth.
func around(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	tenth := uint64(d / 10)
	return d - time.Duration(tenth) + time.Duration(binary.NativeEndian.Uint64(b[:])%(2*tenth+1))
}

// round attests once and asks for each lease. It takes no longer than the
// interval.
func (k *Keeper) round(ctx context.Context) {
	k.mu.Lock()
	all := append([]*held(nil), k.order...)
	k.mu.Unlock()
	if len(all) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, k.cfg.Interval)
	defer cancel()
	renewed := k.contained(func() error { return k.cfg.Renew(bounded) })
	for _, h := range all {
		err := renewed
		if err == nil || silent(err) {
			err = k.contained(func() error { return h.Ask(bounded) })
		}
		if ctx.Err() != nil {
			return // the pod ends; nobody refused anything
		}
		if k.holds(h) {
			k.settle(ctx, h, err)
		}
	}
}

// contained keeps a bug from ending the agent. It counts as a failure that is no
// broker's decision.
func (k *Keeper) contained(ask func() error) error {
	err := fault.Contain(ask)
	if p, ok := errors.AsType[*fault.Panic](err); ok {
		k.cfg.Logger.Error("renewing a lease panicked", slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	}
	return err
}

func (k *Keeper) holds(h *held) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.held[h]
	return ok
}

// silent reports whether a failure is no broker's decision.
func silent(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.Unavailable || code == fault.Internal || code == fault.TooMany
}

// settle draws the conclusion from an answer.
func (k *Keeper) settle(ctx context.Context, h *held, err error) {
	now := time.Now()
	log := k.cfg.Logger.With(slog.String("container", h.Holder), slog.String("what", h.What))
	switch {
	case err == nil:
		if h.ended {
			log.InfoContext(ctx, "a lease is back")
		}
		h.good, h.ended = now, false
		return
	case silent(err) && (k.cfg.Grace == 0 || now.Sub(h.good) < k.cfg.Grace):
		log.InfoContext(ctx, "a lease could not be renewed", slog.String("code", string(fault.CodeOf(err))))
		return
	case h.ended:
		return
	}
	h.ended = true
	log.WarnContext(ctx, "a lease has ended", slog.String("code", string(fault.CodeOf(err))), slog.String("then", string(k.cfg.OnEnd)))
	if k.cfg.OnEnd == Keep {
		return
	}
	k.cfg.Forget()
	if h.Drop != nil {
		if err := h.Drop(); err != nil {
			log.ErrorContext(ctx, "what was lent could not be taken back", slog.Any("err", err))
		}
	}
	if k.cfg.OnEnd == Stop {
		if err := k.stop(ctx, h); err != nil {
			log.ErrorContext(ctx, "who holds the lease could not be stopped", slog.Any("err", err))
			h.ended = false // the next round tries again
		}
	}
}

func (k *Keeper) stop(ctx context.Context, h *held) error {
	if h.Cut != nil {
		return h.Cut()
	}
	return k.cfg.Stop(ctx, h.Holder)
}
