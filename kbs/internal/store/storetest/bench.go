package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Bench measures an engine by what the broker does: an update that puts one
// record and appends to a chain through a head that everybody writes. It
// reports updates per second of this process's CPU, which other processes
// disturb little, and the time that one takes.
func Bench(b *testing.B, open func(b *testing.B) store.Store) {
	for _, writers := range []int{1, 8, 64} {
		for _, readers := range []int{0, 2} {
			b.Run(fmt.Sprintf("writers=%d/readers=%d", writers, readers), func(b *testing.B) {
				st := open(b)
				defer func() { _ = st.Close() }()
				bench(b, []store.Store{st}, writers, readers)
			})
		}
	}
	b.Run("get", func(b *testing.B) {
		st := open(b)
		defer func() { _ = st.Close() }()
		if err := chain(b.Context(), st, 0); err != nil {
			b.Fatal(err)
		}
		start := cpu()
		for b.Loop() {
			if err := look(b.Context(), st, "head"); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/(cpu()-start).Seconds(), "ops/cpu-s")
	})
}

// BenchReplicas measures stores that share their state, with 64 writers in all.
func BenchReplicas(b *testing.B, open func(b *testing.B, n int) []store.Store) {
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("replicas=%d", n), func(b *testing.B) {
			all := open(b, n)
			bench(b, all, 64, 0)
			for _, st := range all {
				_ = st.Close()
			}
		})
	}
}

func bench(b *testing.B, all []store.Store, writers, readers int) {
	st := all[0]
	if err := chain(b.Context(), st, 0); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var beside sync.WaitGroup
	var reads, next atomic.Int64
	for range readers {
		beside.Go(func() {
			for ctx.Err() == nil {
				if look(ctx, st, "head") == nil {
					reads.Add(1)
				}
			}
		})
	}
	b.ResetTimer()
	start, from := cpu(), time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := chain(b.Context(), all[w%len(all)], i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	used, wall := cpu()-start, time.Since(from)
	stop()
	beside.Wait()
	b.ReportMetric(float64(b.N)/wall.Seconds(), "updates/s")
	if readers > 0 { // they use what CPU they get
		b.ReportMetric(float64(reads.Load())/wall.Seconds(), "reads/s")
	} else {
		b.ReportMetric(float64(b.N)/used.Seconds(), "updates/cpu-s")
	}
}

// chain is what an attestation writes: its own record, an entry of the log
// with its hashes, and the head of the log.
func chain(ctx context.Context, st store.Store, i int64) error {
	return st.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Get("head"); err != nil && i > 0 {
			return err
		}
		until := time.Unix(1<<31, 0)
		if _, err := tx.PutUntil(fmt.Sprintf("session/%064d", i), make([]byte, 1500), store.Absent, until); err != nil {
			return err
		}
		if _, err := tx.Put(fmt.Sprintf("audit/entry/%020d", i), make([]byte, 500), store.Absent); err != nil {
			return err
		}
		if _, err := tx.Put(fmt.Sprintf("audit/hashes/%020d", i), make([]byte, 64), store.Absent); err != nil {
			return err
		}
		_, err := tx.Put("head", make([]byte, 32), store.Any)
		return err
	})
}

func look(ctx context.Context, st store.Store, key string) error {
	return st.View(ctx, func(tx store.Tx) error { _, err := tx.Get(key); return err })
}

// cpu is what this process has used so far, in user and kernel mode.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are constant
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
