package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// touch writes once to so many bytes of free memory, or to half of what is free.
//
// A virtual machine may give free memory back to its host (free page reporting),
// and the first write to it afterwards faults there: on the machine that this
// benchmark was written on 1.9 s for each GB that nobody had used for half a
// minute, and 0.4 s for what had just become free. So it mattered which tool
// ran before. Memory is touched before each pull and each measurement of the
// ceiling's parts, and is free again when they start.
func touch(bytes int64) (err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("free memory: %w", err)
	}
	bytes = min(bytes, int64(info.Freeram)*int64(info.Unit)/2) //nolint:gosec // bytes of memory
	memory, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("%d bytes of memory: %w", bytes, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(memory)) }()
	// Where there are no huge pages it is done with small ones.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	const page = 4 << 10
	var cores sync.WaitGroup
	for part := range slices.Chunk(memory, max(page, len(memory)/runtime.NumCPU()/page*page)) {
		cores.Go(func() {
			for i := 0; i < len(part); i += page {
				part[i] = 1
			}
		})
	}
	cores.Wait()
	return nil
}

// footprint is what a tool fills of memory in bytes: the tree, and for most of
// them the blobs. What a disk caches it writes later.
func (r *runner) footprint() int64 { return r.image.size + r.image.compressed }
