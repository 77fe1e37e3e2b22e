package agent

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// renewed is a configuration of TLS from files, which somebody replaces when a
// certificate comes to its end. It is looked at with every handshake: those are
// few, and no clock decides when a new certificate counts.
type renewed struct {
	o   Options
	log *slog.Logger

	mu     sync.Mutex
	seen   [3]version // of the files, when they were last read
	config *tls.Config
}

// version tells one content of a file from another.
type version struct {
	file    os.FileInfo
	size    int64
	changed time.Time
}

// listenRenewed reads the files for the first time: they must be right then.
func listenRenewed(o Options, log *slog.Logger) (*tls.Config, error) {
	r := &renewed{o: o, log: log}
	seen, err := r.look()
	if err != nil {
		return nil, err
	}
	if err := r.read(seen); err != nil {
		return nil, err
	}
	config := r.config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil }
	return config, nil
}

// current is the configuration of the files as they are. Files that are not right
// change nothing: they may be half replaced, and who is known stays so until they
// are whole.
func (r *renewed) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, err := r.look()
	if err == nil && r.same(seen) {
		return r.config
	}
	if err == nil {
		err = r.read(seen)
	}
	if err != nil {
		r.log.Warn("the certificates for the runtime's door cannot be renewed for now", slog.Any("err", err))
		return r.config
	}
	r.log.Info("the certificates for the runtime's door were renewed")
	return r.config
}

func (r *renewed) look() (seen [3]version, err error) {
	for i, path := range []string{r.o.TLSCert, r.o.TLSKey, r.o.TLSClientCA} {
		fi, err := os.Stat(path)
		if err != nil {
			return seen, fmt.Errorf("certificates for the runtime's door: %w", err)
		}
		seen[i] = version{fi, fi.Size(), fi.ModTime()}
	}
	return seen, nil
}

func (r *renewed) same(seen [3]version) bool {
	for i, now := range seen {
		was := r.seen[i]
		if was.size != now.size || !was.changed.Equal(now.changed) || !os.SameFile(was.file, now.file) {
			return false
		}
	}
	return true
}

// read takes the files as they are, which were as seen a moment ago: what changes
// meanwhile is seen again with the next handshake.
func (r *renewed) read(seen [3]version) error {
	s, err := readListenTLS(r.o)
	if err != nil {
		return err
	}
	defer s.Key.Destroy()
	config, err := verified(s)
	if err != nil {
		return err
	}
	r.config, r.seen = config, seen
	return nil
}
