package unpack

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// manyFiles is a layer like those of a distribution: 12,000 files, most of
// them small, in 1,200 directories, and a few links.
func manyFiles(t testing.TB) ([]byte, int) {
	t.Helper()
	var all []entry
	body := bytes.Repeat([]byte("vouchsafe "), 2000)
	for d := range 1200 {
		at := fmt.Sprintf("usr/share/%d/%d", d/40, d)
		all = append(all, dir(at))
		for f := range 9 {
			all = append(all, file(fmt.Sprintf("%s/file-%d", at, f), string(body[:(d*f*37)%len(body)])))
		}
		all = append(all, symlink(at+"/link", "file-1"), link(at+"/hard", at+"/file-2"))
	}
	return archive(t, all...), len(all)
}

func cpu(t testing.TB) float64 {
	t.Helper()
	var r unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// BenchmarkEntries measures entries per second, of processor time and by the
// clock, in memory: what making files costs, without a disk.
func BenchmarkEntries(b *testing.B) {
	needRoot(b)
	raw, n := manyFiles(b)
	var used float64
	for range b.N {
		b.StopTimer()
		dir, err := os.MkdirTemp("/dev/shm", "unpack-")
		must(b, err)
		b.StartTimer()
		before := cpu(b)
		_, err = Apply(b.Context(), bytes.NewReader(raw), dir, Limits{})
		used += cpu(b) - before
		b.StopTimer()
		must(b, err)
		must(b, os.RemoveAll(dir))
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(b.N)/used, "entries/cpu-s")
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(float64(len(raw))*float64(b.N)/used/1e6, "MB/cpu-s")
}
