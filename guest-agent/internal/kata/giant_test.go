package kata

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// A message larger than the protocol's 4 MiB is thrown away and refused, one
// that claims four gigabytes ends its own connection, and bytes that are no
// message are refused. Others are answered meanwhile.
func TestGiantMessages(t *testing.T) {
	t.Parallel()
	p := newSandbox(t)
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", filepath.Join(filepath.Dir(p.dir), "agent.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	header := func(length, stream uint32, kind byte) []byte {
		h := make([]byte, 10)
		binary.BigEndian.PutUint32(h, length)
		binary.BigEndian.PutUint32(h[4:], stream)
		h[8] = kind
		return h
	}
	const giant = 5 << 20
	conn := dial()
	if _, err := conn.Write(append(header(giant, 1, 1), make([]byte, giant)...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[7] != 1 || answer[8] != 2 {
		t.Errorf("answer %x, %v", answer, err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	endless := dial()
	if _, err := endless.Write(header(1<<32-1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := endless.Read(make([]byte, 1)); err == nil {
		t.Error("four gigabytes are waited for")
	}
	odd := dial()
	for _, h := range [][]byte{header(3, 2, 1), header(3, 1, 9), header(3, 3, 1)} { // an even stream, a kind that does not exist, no request
		if _, err := odd.Write(append(h, "\xff\xff\xff"...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if _, err := p.health.Check(t.Context(), &agent.CheckRequest{}); err != nil {
			t.Fatalf("others are not answered: %v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 1<<30 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
