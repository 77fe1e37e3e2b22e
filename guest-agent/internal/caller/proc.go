package caller

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/cgroup"
)

// established is the state of a connection in the kernel's tables (tcp_states.h).
const established = "01"

// socketOf returns the inode and owner of the connected socket with these two
// ends in the agent's network namespace.
func (f *Finder) socketOf(local, remote netip.AddrPort) (inode uint64, uid uint32, err error) {
	local, remote = plain(local), plain(remote)
	err = f.rows(func(r row) bool {
		if r.local == local && r.remote == remote && r.inode != 0 {
			inode, uid = r.inode, r.uid
		}
		return inode == 0
	})
	if err == nil && inode == 0 {
		err = errors.New("the other end of the connection is not in this network namespace")
	}
	return inode, uid, err
}

// rows calls do for each connection in the agent's network namespace, until it
// returns false.
func (f *Finder) rows(do func(row) bool) error {
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(filepath.Join(f.dir(), "thread-self/net", table))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		more := true
		lines := bufio.NewScanner(file)
		for more && lines.Scan() {
			if r, ok := parseRow(lines.Text()); ok {
				more = do(r)
			}
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil || !more {
			return err
		}
	}
	return nil
}

// plain is an address as IPv4 where it is one, so that a program that connects
// by IPv6 to an IPv4 address is found.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// row is a connection in /proc/net/tcp.
type row struct {
	local, remote netip.AddrPort
	uid           uint32
	inode         uint64
}

// parseRow reads a line of /proc/net/tcp or tcp6 (Linux,
// Documentation/networking/proc_net_tcp.rst).
func parseRow(line string) (r row, ok bool) {
	w := strings.Fields(line)
	if len(w) < 10 || w[3] != established {
		return r, false
	}
	uid, err := strconv.ParseUint(w[7], 10, 32)
	if err != nil {
		return r, false
	}
	if r.inode, err = strconv.ParseUint(w[9], 10, 64); err != nil {
		return r, false
	}
	r.uid = uint32(uid)
	var lok, rok bool
	r.local, lok = parseEnd(w[1])
	r.remote, rok = parseEnd(w[2])
	return r, lok && rok
}

// parseEnd reads an address as the kernel prints it: words of 32 bits in the
// machine's order.
func parseEnd(s string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	raw, herr := hex.DecodeString(addr)
	if !ok || err != nil || herr != nil || len(port) != 4 || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw) // of a length that it takes
	return plain(netip.AddrPortFrom(ip, uint16(n))), true
}

// holders returns the processes that have a socket open.
func (f *Finder) holders(inode uint64) (pids []int, err error) {
	err = f.open(func(pid int, one uint64) bool {
		if one == inode {
			pids = append(pids, pid)
		}
		return one != inode
	})
	return pids, err
}

// open calls do for each socket that a process has open; it goes on with the next
// process when do returns false.
func (f *Finder) open(do func(pid int, inode uint64) bool) error {
	entries, err := os.ReadDir(f.dir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f.sockets(pid, func(inode uint64) bool { return do(pid, inode) })
	}
	return nil
}

// sockets calls do for each socket that a process has open, until it returns false.
func (f *Finder) sockets(pid int, do func(inode uint64) bool) {
	fds := filepath.Join(f.dir(), strconv.Itoa(pid), "fd")
	names, err := os.ReadDir(fds)
	if err != nil {
		return // it has ended
	}
	for _, fd := range names {
		to, err := os.Readlink(filepath.Join(fds, fd.Name()))
		number, is := strings.CutPrefix(to, "socket:[")
		if err != nil || !is {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); err == nil && !do(inode) {
			return
		}
	}
}

// holds reports whether a process has a socket open.
func (f *Finder) holds(pid int, inode uint64) (does bool) {
	f.sockets(pid, func(one uint64) bool {
		does = one == inode
		return !does
	})
	return does
}

// containerOf returns the container that a process is in, nil if it is in none.
func (f *Finder) containerOf(pid int) (*Container, error) {
	own, err := f.cgroups(pid)
	if err != nil {
		return nil, fmt.Errorf("cgroups of the caller: %w", err)
	}
	var found *Container
	for _, c := range f.Containers() {
		init, err := f.cgroups(c.PID)
		if err != nil {
			continue // it has ended
		}
		if !below(own, init) {
			continue
		}
		if found != nil {
			return nil, errors.New("the caller could be in more than one container")
		}
		found = &c
	}
	return found, nil
}

// cgroups returns the path of a process in each hierarchy.
func (f *Finder) cgroups(pid int) (cgroup.Paths, error) {
	return cgroup.Read(filepath.Join(f.dir(), strconv.Itoa(pid), "cgroup"))
}

// below reports whether own is, in every hierarchy in which a container has a
// cgroup of its own, that one or inside of it. A container without any has no
// callers.
func below(own, init cgroup.Paths) bool {
	limited := false
	for hierarchy, at := range init {
		if at == "/" {
			continue
		}
		limited = true
		if p := own[hierarchy]; p != at && !strings.HasPrefix(p, at+"/") {
			return false
		}
	}
	return limited
}
