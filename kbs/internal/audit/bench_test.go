package audit

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

var typical = api.AuditEntry{
	Kind: "release", Decision: "allow", Subject: "snp/8f2c1d3e4b5a6978/0c1d2e3f", Object: "resource/prod/image/app",
	Details: map[string]string{"policy": "resource/resource-policy@3"},
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// grow appends entries in few transactions.
func (w *world) grow(t testing.TB, n int) {
	t.Helper()
	for n > 0 {
		some := min(n, 5000)
		n -= some
		err := w.st.Update(context.Background(), func(tx store.Tx) error {
			for range some {
				if _, err := w.log.AppendTx(tx, typical); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// An append costs the same however long the log is: it reads one record and
// writes one.
func BenchmarkAppend(b *testing.B) {
	for _, behind := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprintf("behind=%d", behind), func(b *testing.B) {
			w := newWorld(b)
			w.grow(b, behind)
			used := cpu()
			for b.Loop() {
				if _, err := w.log.Append(b.Context(), typical); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkAppendTx is what an entry adds to a transaction that is there
// anyway.
func BenchmarkAppendTx(b *testing.B) {
	for _, behind := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("behind=%d", behind), func(b *testing.B) {
			w := newWorld(b)
			w.grow(b, behind)
			b.ResetTimer()
			w.grow(b, b.N)
		})
	}
}

// BenchmarkEncode is the part that is not the store's.
func BenchmarkEncode(b *testing.B) {
	w := newWorld(b)
	w.grow(b, 99_999)
	var end tip
	w.raw(b, func(tx store.Tx) (err error) {
		end, err = readTip(tx, w.log.mac.Reveal())
		return err
	})
	key := w.log.mac.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		e := typical
		e.Index, e.Time = end.size, clock
		_ = newRecord(end, appendCanonical(make([]byte, 0, 512), &e)).sealed(key)
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	for _, behind := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("behind=%d", behind), func(b *testing.B) {
			w := newWorld(b)
			w.grow(b, behind)
			for b.Loop() {
				w.fill(b, 1)
				w.checkpoint(b)
			}
		})
	}
}

func BenchmarkEntries(b *testing.B) {
	w := newWorld(b)
	w.fill(b, 100)
	for b.Loop() {
		if _, err := w.log.Entries(b.Context(), 50, 10); err != nil {
			b.Fatal(err)
		}
	}
}
