// Package machine changes what the guest's kernel has while it runs: processors
// and memory that the host has plugged in, the clock, the entropy pool, kernel
// modules. A runtime asks for these around hot-plugging and after a machine was
// resumed from a template (kata-agent 1.2, 2.14).
//
// None of it can be undone by a later request, so what weakens the guest is
// refused here whoever allows it: the clock does not go back, entropy of the
// host's is not counted as entropy, and modules come from the guest's own image.
package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is what the kernel of this guest, or this kind of machine, does
// not have.
var ErrUnsupported = errors.New("the guest does not have this")

// InvalidError is a request that cannot be met as it stands. Its text is meant
// for the host.
type InvalidError struct{ text string }

func (e *InvalidError) Error() string { return e.text }

func invalidf(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// Machine is the guest. The zero value is the machine that the program runs on;
// its fields are for tests.
type Machine struct {
	// Root is put before /sys, /dev and the programs.
	Root string
	// Now and SetClock are the wall clock.
	Now      func() time.Time
	SetClock func(time.Time) error
	// Reseeded tells the kernel to use what was mixed into its entropy pool.
	Reseeded func(random *os.File) error
	// Settle is how long newly plugged processors and memory are waited for.
	Settle time.Duration
}

func (m *Machine) path(p string) string { return filepath.Join(m.Root, p) }

const (
	cpuDir    = "/sys/devices/system/cpu"
	memoryDir = "/sys/devices/system/memory"
	probeFile = memoryDir + "/probe"
	random    = "/dev/urandom"

	defaultSettle = 5 * time.Second // 100 looks of 50 ms, as in the field
	lookEvery     = 50 * time.Millisecond
)

// MemoryBlockSize is the unit in which memory is plugged in, in bytes; 0 where it
// cannot be.
func (m *Machine) MemoryBlockSize() uint64 {
	raw, err := os.ReadFile(m.path(memoryDir + "/block_size_bytes"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// HasProbe reports whether the kernel must be told of plugged memory.
func (m *Machine) HasProbe() bool {
	_, err := os.Stat(m.path(probeFile))
	return err == nil
}

// maxProbes bounds the addresses of one request; a block has 128 MB at least.
const maxProbes = 4096

// Probe tells the kernel where memory was plugged in: on machines without a
// firmware that would (arm64).
func (m *Machine) Probe(addresses []uint64) error {
	size := m.MemoryBlockSize()
	switch {
	case !m.HasProbe():
		return fmt.Errorf("plug in memory by its address: %w", ErrUnsupported)
	case len(addresses) > maxProbes:
		return invalidf("%d addresses, at most %d are possible", len(addresses), maxProbes)
	}
	for _, a := range addresses {
		if size == 0 || a%size != 0 {
			return invalidf("address %#x is not that of a block of memory", a)
		}
	}
	for _, a := range addresses {
		if err := os.WriteFile(m.path(probeFile), fmt.Appendf(nil, "%#x", a), 0); err != nil {
			return fmt.Errorf("plug in memory at %#x: %w", a, err)
		}
	}
	return nil
}

// Online takes processors and, unless cpuOnly, memory that were plugged in into
// use. With wait it does not return before as many processors are there and in
// use, or the time is over.
func (m *Machine) Online(ctx context.Context, wait bool, cpus int, cpuOnly bool) error {
	settle := m.Settle
	if settle == 0 {
		settle = defaultSettle
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for missing := cpus; ; {
		done, err := m.online(cpuDir, "cpu", missing)
		missing -= done
		if err != nil {
			return err
		}
		if missing <= 0 || !wait {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			return fmt.Errorf("%d of %d processors did not come into use: %w", missing, cpus, ctx.Err())
		}
	}
	if cpuOnly {
		return nil
	}
	_, err := m.online(memoryDir, "memory", -1)
	return err
}

// online writes 1 into the switches of parts that are off, of at most so many
// parts (negative: of all), and says of how many.
func (m *Machine) online(dir, prefix string, most int) (int, error) {
	switches, err := filepath.Glob(m.path(dir) + "/" + prefix + "[0-9]*/online")
	if err != nil {
		return 0, err
	}
	done := 0
	for _, path := range switches {
		if done == most {
			break
		}
		raw, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(raw)) != "0" {
			continue // gone again, or in use
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			return done, fmt.Errorf("take %s into use: %w", filepath.Base(filepath.Dir(path)), err)
		}
		done++
	}
	return done, nil
}

// SetTime puts the clock forward, as after a machine was resumed. It never goes
// back: an old token, certificate or signature would count again.
func (m *Machine) SetTime(t time.Time) error {
	now, set := time.Now, setClock
	if m.Now != nil {
		now, set = m.Now, m.SetClock
	}
	if t.Before(now()) {
		return invalidf("the clock is not set back")
	}
	if err := set(t); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

func setClock(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// maxEntropy bounds the bytes of one request.
const maxEntropy = 4096

// Reseed mixes bytes of the host's into the entropy pool, so that machines
// resumed from one template differ. The kernel does not count them as entropy:
// the host knows them. They can only add to what is there.
func (m *Machine) Reseed(data []byte) error {
	if len(data) == 0 || len(data) > maxEntropy {
		return invalidf("%d bytes of entropy, 1 to %d are possible", len(data), maxEntropy)
	}
	f, err := os.OpenFile(m.path(random), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("mix in entropy: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("mix in entropy: %w", err)
	}
	reseed := m.Reseeded
	if reseed == nil {
		reseed = crngReseed
	}
	if err := reseed(f); err != nil {
		return fmt.Errorf("have the kernel use the new entropy: %w", err)
	}
	return nil
}

// crngReseed is the ioctl RNDRESEEDCRNG (Linux, include/uapi/linux/random.h).
func crngReseed(f *os.File) error {
	const rndReseedCRNG = 0x5207
	return unix.IoctlSetInt(int(f.Fd()), rndReseedCRNG, 0)
}
