package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config says where to look. The zero value is the guest's own.
type Config struct {
	Root    string                 // put before /sys and /dev
	Listen  func() (Events, error) // nil for [Listen]
	Timeout time.Duration          // how long a device is waited for; 0 for 3 s (kata-agent 3.2)
}

const (
	defaultTimeout = 3 * time.Second
	// lookEvery is how often is looked when no event comes: one may be lost, and
	// there are none in a container.
	lookEvery = 100 * time.Millisecond
)

// Finder finds devices. It is safe for concurrent use.
type Finder struct {
	cfg   Config
	every time.Duration // between looks without an event
}

// New returns a Finder.
func New(cfg Config) *Finder {
	if cfg.Listen == nil {
		cfg.Listen = Listen
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Finder{cfg, lookEvery}
}

// A Block is a disk, or a partition of one.
type Block struct {
	Name         string // as in /sys/class/block
	Path         string // of its node
	Major, Minor uint32
}

// Find waits for the disk at an address. It fails with [ErrTimeout].
func (f *Finder) Find(ctx context.Context, a Address) (Block, error) {
	return f.await(ctx, a.String(), func() (string, error) {
		switch {
		case a.node != "":
			return a.node, nil
		case a.scsi != "":
			return f.scsi(a.scsi)
		}
		return f.pci(a.path)
	})
}

// Partition waits for a partition of a disk.
func (f *Finder) Partition(ctx context.Context, b Block, number int) (Block, error) {
	name := b.Name + strconv.Itoa(number)
	if last := b.Name[len(b.Name)-1]; last >= '0' && last <= '9' {
		name = b.Name + "p" + strconv.Itoa(number)
	}
	return f.await(ctx, "/dev/"+name, func() (string, error) { return name, nil })
}

// await looks until the disk that look names is there; an empty name is one that
// is not there yet.
func (f *Finder) await(ctx context.Context, what string, look func() (name string, err error)) (b Block, err error) {
	err = f.until(ctx, what, "block", func() (bool, error) {
		name, err := look()
		if err != nil || name == "" {
			return false, err
		}
		var ok bool
		b, ok = f.block(name)
		return ok, nil
	})
	return b, err
}

// until looks until there is what look is for.
func (f *Finder) until(ctx context.Context, what, subsystem string, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	wake, stop := f.wake(subsystem)
	defer stop()
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		there, err := look()
		if err != nil {
			return fmt.Errorf("look for the device at %s: %w", what, err)
		}
		if there {
			return nil
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%s: %w", what, ErrTimeout)
			}
			return ctx.Err()
		}
	}
}

// wake signals when devices of a subsystem come. It listens before the first look,
// so that none comes unseen in between.
func (f *Finder) wake(subsystem string) (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	events, err := f.cfg.Listen()
	if err != nil {
		return wake, func() {} // looking now and then must do
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := events.Receive()
			if errors.Is(err, unix.ENOBUFS) { // some were lost
				raw, err = []byte("add@/\x00SUBSYSTEM="+subsystem), nil
			}
			if err != nil {
				return
			}
			if e, err := ParseEvent(raw); err == nil && e.Subsystem == subsystem {
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		}
	})
	return wake, func() { _ = events.Close(); wg.Wait() }
}

func (f *Finder) sys(parts ...string) string {
	return filepath.Join(append([]string{f.cfg.Root, "/sys"}, parts...)...)
}

// block returns the device of a name once its node is there.
func (f *Finder) block(name string) (Block, bool) {
	raw, err := os.ReadFile(f.sys("class/block", name, "dev"))
	if err != nil {
		return Block{}, false
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(raw)), ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if err1 != nil || err2 != nil {
		return Block{}, false
	}
	b := Block{Name: name, Path: filepath.Join(f.cfg.Root, "/dev", name), Major: uint32(ma), Minor: uint32(mi)}
	var st unix.Stat_t
	if unix.Lstat(b.Path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != unix.Mkdev(b.Major, b.Minor) {
		return Block{}, false
	}
	return b, true
}

// pci follows a path to a virtio disk.
func (f *Finder) pci(path []slot) (string, error) {
	dir, err := f.function(path)
	if dir == "" {
		return "", err
	}
	virtio, err := only(dir, "virtio")
	if virtio == "" {
		return "", err
	}
	return only(filepath.Join(dir, virtio, "block"), "")
}

// function follows a path from the root bus through bridges to a device, and
// returns its directory.
func (f *Finder) function(path []slot) (string, error) {
	bus := "0000:00"
	if path[0].device >= pciRoot {
		bus = "0000:" + hex2(path[0].device)
		path = path[1:]
	}
	dir := f.sys("devices", "pci"+bus)
	for i, s := range path {
		if i > 0 {
			var err error
			if bus, err = only(filepath.Join(dir, "pci_bus"), ""); bus == "" {
				return "", err
			}
		}
		dir = filepath.Join(dir, bus+":"+hex2(s.device)+"."+strconv.Itoa(int(s.function)))
	}
	return dir, nil
}

// scsi has the hosts look for a unit, and returns its disk.
func (f *Finder) scsi(address string) (string, error) {
	target, unit, _ := strings.Cut(address, ":")
	found, err := filepath.Glob(f.sys("bus/scsi/devices", "*:0:"+target+":"+unit, "block", "*"))
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		return "", invalidf("there are %d disks at SCSI address %s", len(found), address)
	}
	if len(found) == 1 {
		return filepath.Base(found[0]), nil
	}
	hosts, err := filepath.Glob(f.sys("class/scsi_host/host*/scan"))
	for _, h := range hosts {
		if err := os.WriteFile(h, []byte("0 "+target+" "+unit), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", err
}

// only returns the one entry of a directory that begins with prefix, empty if
// there is none yet.
func only(dir, prefix string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	found := ""
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if found != "" {
			return "", invalidf("more than one device lies in %s", filepath.Base(dir))
		}
		found = e.Name()
	}
	return found, nil
}

// Unused fails with [ErrBusy] if the guest's kernel uses the disk: it is mounted,
// swap, or below a mapping. So a host cannot have the guest's own disks given to
// a container.
func (b Block) Unused() error {
	f, err := os.OpenFile(b.Path, os.O_RDONLY|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", b.Name, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", b.Name, err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Rdev != unix.Mkdev(b.Major, b.Minor) {
		return fmt.Errorf("%s has become another device: %w", b.Name, ErrBusy)
	}
	return nil
}
