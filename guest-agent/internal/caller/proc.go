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
)

// established is the state of a connection in the kernel's tables (tcp_states.h).
const established = "01"

// socketOf returns the inode and owner of the connected socket with these two
// ends in the agent's network namespace.
func (f *Finder) socketOf(local, remote netip.AddrPort) (inode uint64, uid uint32, err error) {
	local, remote = plain(local), plain(remote)
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(filepath.Join(f.dir(), "thread-self/net", table))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return 0, 0, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			r, ok := parseRow(lines.Text())
			if ok && r.local == local && r.remote == remote && r.inode != 0 {
				_ = file.Close()
				return r.inode, r.uid, nil
			}
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, errors.New("the other end of the connection is not in this network namespace")
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
	want := fmt.Sprintf("socket:[%d]", inode)
	entries, err := os.ReadDir(f.dir())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fds := filepath.Join(f.dir(), e.Name(), "fd")
		names, err := os.ReadDir(fds)
		if err != nil {
			continue // it has ended
		}
		for _, fd := range names {
			if to, err := os.Readlink(filepath.Join(fds, fd.Name())); err == nil && to == want {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
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
func (f *Finder) cgroups(pid int) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join(f.dir(), strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if w := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(w) == 3 {
			paths[w[1]] = w[2]
		}
	}
	return paths, nil
}

// below reports whether own is, in every hierarchy in which a container has a
// cgroup of its own, that one or inside of it. A container without any has no
// callers.
func below(own, init map[string]string) bool {
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
