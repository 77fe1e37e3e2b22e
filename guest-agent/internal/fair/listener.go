package fair

import (
	"log/slog"
	"net"
	"sync"
)

// Listener hands out connections as places: those that a caller has too many of
// are closed.
type Listener struct {
	net.Listener
	places *Places
	who    func(net.Conn) string
	log    *slog.Logger
	told   bool // of a crowd; only Accept's, which is not called twice at a time
}

// Listen shares total connections of l. who tells one caller from another.
func Listen(l net.Listener, total int, who func(net.Conn) string, log *slog.Logger) *Listener {
	return &Listener{Listener: l, places: New(total), who: who, log: log}
}

// Accept returns the next connection of a caller that may have it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave, ok := l.places.Take(func() string { return l.who(conn) }); ok {
			if l.places.few() {
				l.told = false
			}
			return &shared{Conn: conn, leave: sync.OnceFunc(leave)}, nil
		}
		if !l.told { // once for a crowd: who crowds must not fill the log too
			l.told = true
			l.log.Warn("a connection was refused: its caller has too many, or all do", slog.String("address", l.Addr().String()), slog.String("caller", l.who(conn)))
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // the kernel shall not keep it for a minute more
		}
		_ = conn.Close()
	}
}

// shared gives its place back when it is closed.
type shared struct {
	net.Conn
	leave func()
}

func (s *shared) Close() error {
	defer s.leave()
	return s.Conn.Close()
}

// NetConn is the connection itself.
func (s *shared) NetConn() net.Conn { return s.Conn }
