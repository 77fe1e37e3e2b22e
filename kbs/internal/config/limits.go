package config

import (
	"net"
	"net/netip"
	"time"
)

// Limits keep one caller, or many at once, from taking the broker away from
// the others. An address is an IPv4 address or the /64 of an IPv6 address. A
// rate of 0 turns that limit off.
type Limits struct {
	// AuthPerSecond limits the handshakes that one address may open.
	AuthPerSecond int `toml:"auth_per_second"`
	// AttestPerSecond limits the evidence that one address may send.
	AttestPerSecond int `toml:"attest_per_second"`
	// FailuresPerSecond limits requests without a valid credential or token
	// from one address.
	FailuresPerSecond int `toml:"failures_per_second"`
	// Burst is how many seconds' worth of a rate may come at once.
	Burst int `toml:"burst_seconds"`
	// Addresses is how many addresses are remembered; beyond it, the one that
	// was silent the longest is forgotten.
	Addresses int `toml:"addresses"`
	// TrustedProxies are the networks (CIDR) of proxies whose X-Forwarded-For
	// is believed. From anywhere else that header is ignored.
	TrustedProxies []string `toml:"trusted_proxies"`
	// AttestConcurrency is how many verifications run at once; 0 means as many
	// as there are CPUs. Of explanations of denied releases half as many run, at
	// least one, in a queue of their own that is as long and as patient; a denial
	// without a turn stays one, and its ticket has no explanation.
	AttestConcurrency int `toml:"attest_concurrency"`
	// AttestQueue is how many verifications may wait for their turn.
	AttestQueue int `toml:"attest_queue"`
	// AttestQueueMilliseconds is how long one may wait.
	AttestQueueMilliseconds int `toml:"attest_queue_ms"`
	// MaxConnections limits the open connections of the guests' sockets
	// together, and those of the services' for other brokers; more wait in the
	// kernel.
	MaxConnections int `toml:"max_connections"`
	// HeadSeconds is how long a request's head may take to arrive.
	HeadSeconds int `toml:"head_seconds"`
	// BodyBytesPerSecond is the least rate at which a body must arrive, after
	// ten seconds of grace.
	BodyBytesPerSecond int `toml:"body_bytes_per_second"`
	// TicketDays is how long the ticket of a refusal can be opened. The audit
	// log is kept for ever.
	TicketDays int `toml:"ticket_days"`
	// DrainSeconds is how long a shutdown waits for running requests.
	DrainSeconds int `toml:"drain_seconds"`
}

func defaultLimits() Limits {
	return Limits{
		AuthPerSecond: 100, AttestPerSecond: 100, FailuresPerSecond: 20, Burst: 10, Addresses: 16384, TrustedProxies: []string{},
		AttestQueue: 512, AttestQueueMilliseconds: 2000, MaxConnections: 16384,
		HeadSeconds: 10, BodyBytesPerSecond: 4096, TicketDays: 90, DrainSeconds: 15,
	}
}

func (l Limits) validate(p *problems) {
	const rate = 1_000_000
	p.between("limits.auth_per_second", l.AuthPerSecond, 0, rate)
	p.between("limits.attest_per_second", l.AttestPerSecond, 0, rate)
	p.between("limits.failures_per_second", l.FailuresPerSecond, 0, rate)
	p.between("limits.ticket_days", l.TicketDays, 1, 3650)
	p.between("limits.burst_seconds", l.Burst, 1, 3600)
	p.between("limits.addresses", l.Addresses, 1024, 1<<22)
	p.between("limits.attest_concurrency", l.AttestConcurrency, 0, 4096)
	p.between("limits.attest_queue", l.AttestQueue, 0, 1<<20)
	p.between("limits.attest_queue_ms", l.AttestQueueMilliseconds, 10, 60_000)
	p.between("limits.max_connections", l.MaxConnections, 16, 1<<20)
	p.between("limits.head_seconds", l.HeadSeconds, 1, 300)
	p.between("limits.body_bytes_per_second", l.BodyBytesPerSecond, 1, 1<<30)
	p.between("limits.drain_seconds", l.DrainSeconds, 1, 600)
	for _, text := range l.TrustedProxies {
		if _, err := netip.ParsePrefix(text); err != nil {
			p.bad("limits.trusted_proxies", "%q is not a network like 10.0.0.0/8", text)
		}
	}
}

// Proxies returns the trusted proxies of a valid configuration.
func (l Limits) Proxies() []netip.Prefix {
	var out []netip.Prefix
	for _, text := range l.TrustedProxies {
		if n, err := netip.ParsePrefix(text); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// QueueWait is how long a verification may wait for its turn.
func (l Limits) QueueWait() time.Duration {
	return time.Duration(l.AttestQueueMilliseconds) * time.Millisecond
}

// Head is how long a request's head may take to arrive.
func (l Limits) Head() time.Duration { return time.Duration(l.HeadSeconds) * time.Second }

// Drain is how long a shutdown waits for running requests.
func (l Limits) Drain() time.Duration { return time.Duration(l.DrainSeconds) * time.Second }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// TicketRetention is how long a ticket can be opened.
func (c Config) TicketRetention() time.Duration {
	return time.Duration(c.Limits.TicketDays) * 24 * time.Hour
}
