package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
)

// A Proxy says over which proxy a request goes; nil is none.
type Proxy func(*http.Request) (*url.URL, error)

// MachineProxy is what apt on this machine is configured with, and the
// environment for what that does not say; without apt the environment alone.
func MachineProxy(ctx context.Context) (Proxy, error) {
	cmd := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "Acquire")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	raw, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return http.ProxyFromEnvironment, nil
	}
	if err != nil {
		return nil, fmt.Errorf("apt-config: %w", err)
	}
	return aptProxy(string(raw), http.ProxyFromEnvironment)
}

// direct is apt's word for no proxy.
const direct = "DIRECT"

// aptProxy reads the lines NAME "VALUE"; of apt-config: a proxy of a scheme, and
// those of single hosts (apt-transport-http(1)). Those of http hold for https too.
func aptProxy(dump string, otherwise Proxy) (Proxy, error) {
	set := map[string]*url.URL{} // by the name in small letters; nil is no proxy
	for line := range strings.Lines(dump) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.ToLower(name)
		if !ok || !isProxy(name) {
			continue
		}
		value = strings.Trim(value, `";`)
		if value == direct || value == "false" {
			set[name] = nil
			continue
		}
		u, err := url.Parse(value)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("apt's %s is no address of a proxy", name) // it may have a password in it
		}
		set[name] = u
	}
	return func(r *http.Request) (*url.URL, error) {
		schemes := []string{r.URL.Scheme}
		if r.URL.Scheme == "https" {
			schemes = append(schemes, "http")
		}
		for _, host := range []string{"::" + strings.ToLower(r.URL.Hostname()), ""} {
			for _, scheme := range schemes {
				if u, ok := set["acquire::"+scheme+"::proxy"+host]; ok {
					return u, nil
				}
			}
		}
		return otherwise(r)
	}, nil
}

// isProxy tells those lines from their neighbours, such as Proxy-Auto-Detect, whose
// value is a program: apt would run it, and we do not.
func isProxy(name string) bool {
	for _, scheme := range []string{"http", "https"} {
		if rest, ok := strings.CutPrefix(name, "acquire::"+scheme+"::proxy"); ok && (rest == "" || strings.HasPrefix(rest, "::")) {
			return true
		}
	}
	return false
}
