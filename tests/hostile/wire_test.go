package hostile

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// dial opens a connection of its own to the guests' listener.
func (s *stage) dial() net.Conn {
	s.Helper()
	d := tls.Dialer{Config: s.tls()}
	conn, err := d.DialContext(s.Context(), "tcp", strings.TrimPrefix(s.world.Broker.URL, "https://"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = conn.Close() })
	return conn
}

// heads sends heads of requests that are too large, or no heads.
func (s *stage) heads() {
	for what, head := range map[string]string{
		"one large header":     "GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n",
		"many headers":         "GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", 20_000) + "\r\n",
		"large target":         "GET /" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"two lengths":          "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"negative length":      "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
		"length and chunks":    "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bad chunk":            "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"unknown encoding":     "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
		"no host":              "GET / HTTP/1.1\r\n\r\n",
		"two hosts":            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"bad host":             "GET /kbs/v0/nothing HTTP/1.1\r\nHost: ../../\x01\r\n\r\n",
		"bad escape":           "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
		"another protocol":     "SSH-2.0-x\r\n\r\n",
		"HTTP/2 in clear text": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"tunnel":               "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
		"another's address":    "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"trace":                "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: kbs-session-id=a\r\n\r\n",
		"invalid method":       "G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		conn := s.dial()
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(conn, head) // the broker may hang up while it is written
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.Errorf("%s: no answer", what)
			}
			continue // to hang up is an answer
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		_ = resp.Body.Close()
		s.silent(what, body)
		if resp.StatusCode < 400 || resp.StatusCode > 499 && resp.StatusCode != http.StatusNotImplemented && resp.StatusCode != http.StatusHTTPVersionNotSupported {
			s.Errorf("%s: status %d: %.200s", what, resp.StatusCode, body)
		}
	}
}

// slow is a client that takes its time.
type slow struct {
	what string
	most time.Duration // after which the broker must have hung up
	done chan error
}

// beginSlow lets slow clients begin, and serves them while the rest goes on.
func (s *stage) beginSlow() []slow {
	s.Helper()
	var out []slow
	for _, c := range []struct {
		what, first string
		drip        string
		most        time.Duration
	}{
		{"slow head", "GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: a\r\n", "X: a\r\n", 20 * time.Second},
		{"no head", "", "", 20 * time.Second},
		{"slow body", "POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{", " ", 25 * time.Second},
		{"no body", "POST /kbs/v0/attest HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", "", 25 * time.Second},
	} {
		conn, one := s.dial(), slow{c.what, c.most, make(chan error, 1)}
		go func() { one.done <- drip(conn, c.first, c.drip, c.most) }()
		out = append(out, one)
	}
	return out
}

// drip writes a little of a request again and again until the other side hangs
// up or refuses.
func drip(conn net.Conn, first, drop string, most time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(most)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, first); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil // it hung up, as it should
		}
		ended <- err
	}()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			_, _ = io.WriteString(conn, drop) // reading tells how it ended
		}
	}
}

// endSlow demands that no slow client was waited for without end.
func (s *stage) endSlow(clients []slow) {
	for _, c := range clients {
		if err := <-c.done; err != nil {
			s.Errorf("%s: %v (within %v)", c.what, err, c.most)
		}
	}
	// A client that asks and never reads holds up nobody else.
	for range 3 {
		conn := s.dial()
		_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(conn, strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", 2000))
	}
	s.token()
}
