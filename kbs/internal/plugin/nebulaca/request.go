package nebulaca

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Limits of what a certificate says, so that it fits into Nebula's handshake
// packets with room to spare.
const (
	maxName  = 253 // bytes, of a certificate and of a group
	maxItems = 32  // groups, and subnets
	maxText  = 4096
)

// Settings are what the configuration says of a certificate authority, in the
// words of the field (kbs-protocol 8). Lists are separated by commas.
type Settings struct {
	Name     string
	Curve    string
	Duration string
	Groups   string
	IPs      string
	Subnets  string
}

// What is meant where nothing is said.
const (
	DefaultName     = "Vouchsafe Nebula CA"
	DefaultDuration = 365 * 24 * time.Hour

	leastDuration = time.Hour // there is one authority after another
)

// Curves of keys, as Nebula's own tools name them.
const (
	Curve25519 = "25519"
	CurveP256  = "P256"
)

// limits are settings that were read.
type limits struct {
	name         string
	p256         bool
	duration     time.Duration
	groups       []string
	ips, subnets []netip.Prefix
}

// Problem is a setting that cannot be used.
type Problem struct {
	Key  string // of Settings, as configurations write it
	What string
}

// Check returns everything that is wrong with the settings.
func (s Settings) Check() []Problem {
	_, all := s.read()
	return all
}

func (s Settings) read() (l limits, all []Problem) {
	note := func(key string, err error) {
		if err != nil {
			all = append(all, Problem{key, err.Error()})
		}
	}
	l.name, l.duration = DefaultName, DefaultDuration
	var err error
	if s.Name != "" {
		l.name = s.Name
		note("name", checkName(s.Name))
	}
	switch s.Curve {
	case "", Curve25519:
	case CurveP256:
		l.p256 = true
	default:
		note("curve", fmt.Errorf("%q is neither %s nor %s", s.Curve, Curve25519, CurveP256))
	}
	if s.Duration != "" {
		l.duration, err = duration(s.Duration)
		if err == nil && l.duration < leastDuration {
			err = fmt.Errorf("an authority lasts %s at least", leastDuration)
		}
		note("duration", err)
	}
	l.groups, err = groups(s.Groups)
	note("groups", err)
	l.ips, err = networks(s.IPs)
	note("ips", err)
	l.subnets, err = networks(s.Subnets)
	note("subnets", err)
	return l, all
}

// request is what a guest asks for.
type request struct {
	name     string
	ip       netip.Prefix
	duration time.Duration // 0: as long as can be
	groups   []string
	subnets  []netip.Prefix
}

// parse reads the query of a request. Parameters that it does not know are
// ignored, as the field's broker does.
func parse(query map[string]string) (r request, err error) {
	r.name = query["name"]
	if err := checkName(r.name); err != nil {
		return r, fmt.Errorf("name: %w", err)
	}
	if r.ip, err = network(query["ip"]); err != nil {
		return r, fmt.Errorf("ip: %w", err)
	}
	if a := r.ip.Addr(); a.IsUnspecified() || a.IsMulticast() || r.ip.Bits() == 0 {
		return r, fmt.Errorf("ip: %s is no host's address in a network", r.ip)
	}
	if text := query["duration"]; text != "" {
		if r.duration, err = duration(text); err != nil {
			return r, fmt.Errorf("duration: %w", err)
		}
	}
	if r.groups, err = groups(query["groups"]); err != nil {
		return r, fmt.Errorf("groups: %w", err)
	}
	if r.subnets, err = networks(query["subnets"]); err != nil {
		return r, fmt.Errorf("subnets: %w", err)
	}
	return r, nil
}

// checkName takes printable ASCII: a name is compared and read by people, and
// what looks like another one is worse than what is refused.
func checkName(s string) error {
	if s == "" || len(s) > maxName || strings.TrimSpace(s) != s {
		return fmt.Errorf("must be 1 to %d characters, without a space at either end", maxName)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Errorf("%q is not printable ASCII", s[i])
		}
	}
	return nil
}

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if len(text) > 64 || err != nil || d < time.Second {
		return 0, fmt.Errorf("%.64q is no time of a second or more, such as 8760h0m0s", text)
	}
	return d, nil
}

// items splits a list as Nebula's own tools do: spaces around an item do not
// count, and neither do empty items.
func items(text string) ([]string, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("more than %d bytes", maxText)
	}
	var out []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	if len(out) > maxItems {
		return nil, fmt.Errorf("more than %d", maxItems)
	}
	return out, nil
}

func groups(text string) ([]string, error) {
	all, err := items(text)
	for _, g := range all {
		if err := checkName(g); err != nil {
			return nil, err
		}
	}
	return all, err
}

func networks(text string) ([]netip.Prefix, error) {
	all, err := items(text)
	var out []netip.Prefix
	for _, item := range all {
		n, err := network(item)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, err
}

// network reads an address of version 4 with the length of its network: all that
// certificates of version 1 have room for.
func network(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("%.64q is no IPv4 address with its network, such as 10.9.8.7/21", text)
	}
	return p, nil
}
