package caller

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Crowd tells many connections over loopback by party, see [Finder.Party]. To look
// for each of them in all processes would take longer than to make them. So it
// looks for all connections at once, and again when one comes that it has not
// seen: of those that wait for their turn most were there at the last look.
//
// That is good enough for a limit. Who may have something is for [Finder.TCP].
type Crowd struct {
	Finder *Finder
	Now    func() time.Time

	mu      sync.Mutex
	looked  time.Time
	sockets map[ends]row
	holders map[uint64][]int // processes, by the socket that they hold
	parties map[int]string   // by process
}

type ends struct{ local, remote netip.AddrPort }

// lookLasts is how long a look counts: after that another process may have a
// connection with the same ends.
const lookLasts = time.Second

const unknown = "unknown"

// TCP names the party that holds the other end of a connection over loopback: the
// one whose own address is remote, as the server sees it.
func (c *Crowd) TCP(local, remote netip.AddrPort) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := ends{local: plain(remote), remote: plain(local)}
	socket, seen := c.sockets[it]
	if now := c.Now(); !seen || now.Sub(c.looked) > lookLasts {
		if err := c.look(); err != nil {
			return unknown
		}
		c.looked = now
		socket = c.sockets[it]
	}
	party := ""
	for _, pid := range c.holders[socket.inode] {
		one := c.party(pid, socket.uid)
		if party != "" && party != one {
			return unknown
		}
		party = one
	}
	if party == "" {
		return unknown
	}
	return party
}

// look finds all connections and who holds them.
func (c *Crowd) look() error {
	c.sockets, c.holders, c.parties = map[ends]row{}, map[uint64][]int{}, map[int]string{}
	wanted := map[uint64]bool{}
	err := c.Finder.rows(func(r row) bool {
		if r.inode != 0 {
			c.sockets[ends{r.local, r.remote}] = r
			wanted[r.inode] = true
		}
		return true
	})
	return errors.Join(err, c.Finder.open(func(pid int, inode uint64) bool {
		if held := c.holders[inode]; wanted[inode] && (len(held) == 0 || held[len(held)-1] != pid) {
			c.holders[inode] = append(held, pid)
		}
		return true
	}))
}

func (c *Crowd) party(pid int, uid uint32) string {
	key, known := c.parties[pid]
	if !known {
		in, err := c.Finder.containerOf(pid)
		key = c.Finder.Party(Caller{PID: pid, UID: uid, Container: in}, err)
		c.parties[pid] = key
	}
	return key
}
