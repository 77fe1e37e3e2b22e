package rpc

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// head is a frame's header.
func head(length, stream uint32, kind, flags uint8) []byte {
	p := make([]byte, headerSize)
	header{length, stream, kind, flags}.put(p)
	return p
}

// requestFrame is a request for the desk; payload is its message.
func requestFrame(t testing.TB, stream uint32, method string, payload []byte) []byte {
	t.Helper()
	raw, err := proto.Marshal(&ttrpc.Request{Service: "test.Desk", Method: method, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return append(head(uint32(len(raw)), stream, kindRequest, 0), raw...)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// answerOf reads a frame and returns its stream and code.
func answerOf(t testing.TB, r io.Reader) (uint32, codes.Code) {
	t.Helper()
	p := make([]byte, headerSize)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	h := parseHeader(p)
	if h.kind != kindResponse || h.flags != 0 || h.length > maxMessage {
		t.Fatalf("the answer is %+v", h)
	}
	p = make([]byte, h.length)
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	var resp ttrpc.Response
	if err := proto.Unmarshal(p, &resp); err != nil {
		t.Fatal(err)
	}
	return h.stream, codes.Code(resp.Status.GetCode())
}

func raw(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Whatever frame comes is answered or passed over, and the connection serves on.
func TestFramesOutOfOrder(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	conn := raw(t, socket)
	bad := func(service, method string) []byte {
		return marshal(t, &ttrpc.Request{Service: service, Method: method})
	}
	stream := func(id uint32, kind, flags uint8, payload []byte) []byte {
		return append(head(uint32(len(payload)), id, kind, flags), payload...)
	}
	late := bad("test.Desk", "Late")
	frames := []struct {
		name  string
		frame []byte
		on    uint32
		code  codes.Code // OK: no answer
	}{
		{"even stream", stream(2, kindRequest, 0, late), 2, codes.InvalidArgument},
		{"stream 0", stream(0, kindRequest, 0, late), 0, codes.InvalidArgument},
		{"a call that waits", stream(5, kindRequest, 0, late), 5, codes.OK},
		{"its stream again", stream(5, kindRequest, 0, late), 5, codes.InvalidArgument},
		{"an earlier stream", stream(3, kindRequest, 0, late), 3, codes.InvalidArgument},
		{"data for the call that waits", stream(5, kindData, 0, []byte("x")), 5, codes.InvalidArgument},
		{"the end of its data", stream(5, kindData, 5, nil), 5, codes.InvalidArgument},
		{"data for nobody", stream(99, kindData, 0, nil), 99, codes.InvalidArgument},
		{"a response", stream(7, kindResponse, 0, []byte("x")), 7, codes.OK},
		{"a kind to come", stream(7, 77, 255, nil), 7, codes.OK},
		{"a stream from the client", stream(7, kindRequest, flagRemoteOpen, late), 7, codes.Unimplemented},
		{"a stream to the client", stream(9, kindRequest, flagRemoteClosed, late), 9, codes.Unimplemented},
		{"no request", stream(11, kindRequest, 0, []byte("\xff\xff")), 11, codes.InvalidArgument},
		{"an empty request", stream(13, kindRequest, 0, nil), 13, codes.Unimplemented},
		{"no text", stream(15, kindRequest, 0, []byte("\x0a\x01\xff")), 15, codes.InvalidArgument},
		{"no text in metadata", stream(17, kindRequest, 0, []byte("\x2a\x03\x0a\x01\xff")), 17, codes.InvalidArgument},
		{"a long name", stream(19, kindRequest, 0, bad("test.Desk", string(bytes.Repeat([]byte("é"), 100_000)))), 19, codes.Unimplemented},
		{"too large", append(head(5<<20, 21, kindRequest, 0), make([]byte, 5<<20)...), 21, codes.ResourceExhausted},
		{"the last stream", stream(1<<32-1, kindRequest, 0, bad("test.Desk", "None")), 1<<32 - 1, codes.Internal},
		{"after the last stream", stream(1, kindRequest, 0, late), 1, codes.InvalidArgument},
	}
	for _, f := range frames {
		if _, err := conn.Write(f.frame); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if f.code == codes.OK {
			continue
		}
		if on, st := answerOf(t, conn); on != f.on || st != f.code {
			t.Fatalf("%s: %v on stream %d", f.name, st, on)
		}
	}
	close(d.release)
	if on, st := answerOf(t, conn); on != 5 || st != codes.OK {
		t.Errorf("the call that waited: %v on stream %d", st, on)
	}
}

// A length that the protocol reserves ends the connection, and holds no memory.
func TestAnnouncedGigabytes(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, length := range []uint32{1 << 24, 1<<32 - 1} {
		conn := raw(t, socket)
		if _, err := conn.Write(head(length, 1, kindRequest, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes are waited for", length)
		}
	}
	for range 20 {
		if _, err := raw(t, socket).Write(head(maxMessage, 1, kindRequest, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := read(t.Context(), dial(t, socket), "Read", 10); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// A connection that asks for more than it may is told so, and for the rest it is
// served; another connection has its own.
func TestTooManyCalls(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	conn := raw(t, socket)
	var all []byte
	const more = 10
	for i := range maxCalls + more {
		all = append(all, requestFrame(t, uint32(2*i+1), "Late", nil)...)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(all)
		wrote <- err
	}()
	for range more {
		if on, st := answerOf(t, conn); st != codes.ResourceExhausted || on < 2*maxCalls {
			t.Fatalf("%v on stream %d", st, on)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if err := read(t.Context(), dial(t, socket), "Read", 10); err != nil {
		t.Error(err)
	}
	close(d.release)
	for range maxCalls {
		if on, st := answerOf(t, conn); st != codes.OK {
			t.Fatalf("%v on stream %d", st, on)
		}
	}
}

func TestTooLargeCalls(t *testing.T) {
	d := newDesk()
	_, socket := open(t, d, Config{})
	conn := raw(t, socket)
	large := requestFrame(t, 0, "Late", marshal(t, &agent.WriteStreamRequest{ExecId: string(make([]byte, maxMessage-100))}))
	const fit = maxHeld / (maxMessage - 200)
	for i := range uint32(fit + 1) {
		copy(large, head(uint32(len(large)-headerSize), 2*i+1, kindRequest, 0))
		if _, err := conn.Write(large); err != nil {
			t.Fatal(err)
		}
	}
	if on, st := answerOf(t, conn); st != codes.ResourceExhausted || on != 2*fit+1 {
		t.Fatalf("%v on stream %d", st, on)
	}
	close(d.release)
	for range fit {
		if on, st := answerOf(t, conn); st != codes.OK {
			t.Fatalf("%v on stream %d", st, on)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	for range maxConns {
		conn := raw(t, socket)
		if _, err := conn.Write(requestFrame(t, 1, "Empty", nil)); err != nil {
			t.Fatal(err)
		}
		answerOf(t, conn)
	}
	conn := raw(t, socket)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("one more is served")
	}
}

// What the library's own stream is refused with is what its client understands.
func TestStreamsAreRefused(t *testing.T) {
	_, socket := open(t, newDesk(), Config{})
	c := dial(t, socket)
	for _, desc := range []ttrpc.StreamDesc{{StreamingClient: true, StreamingServer: true}, {StreamingServer: true}, {StreamingClient: true}} {
		s, err := c.NewStream(t.Context(), &desc, "test.Desk", "Echo", &agent.WriteStreamRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&agent.ReadStreamResponse{}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("streams are not served")) {
			t.Errorf("%+v: %v", desc, err)
		}
	}
	if err := read(t.Context(), c, "Read", 100); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
