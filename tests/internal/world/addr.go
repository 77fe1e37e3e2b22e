package world

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"net"
	"os"
)

// lowest is below all ports that servers of this machine usually have.
const lowest = 10_000

// freeAddr returns a loopback address that nobody listens on just now. A program
// that is started later shall listen there, so the port is none that the kernel
// gives to whoever connects: of those another process could have it by then.
func freeAddr() (string, error) {
	given := 0 // the first port that the kernel gives (ip(7), ip_local_port_range)
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(raw), &given)
	}
	var last error
	for range 100 {
		port := 0
		if given > 2*lowest {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(given-lowest)))
			if err != nil {
				return "", err
			}
			port = lowest + int(n.Int64())
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		return ln.Addr().String(), ln.Close()
	}
	return "", last
}
