package rpc

import "time"

// What one connection, and all of them, may cost. A runtime has one connection,
// two reads and a wait parked for each process of its pod, and sends requests of
// a few kilobytes; files come in pieces of a megabyte.
const (
	// maxMessage bounds the payload of a frame (ttrpc, "Message Frame").
	maxMessage = 4 << 20
	// maxDiscard bounds what is read of a message that is refused for its size,
	// so that the peer hears of it. The protocol reserves the first byte of the
	// length, which larger messages would need.
	maxDiscard = 16<<20 - 1
	// maxCalls bounds the calls of a connection that are not answered yet.
	maxCalls = 8192
	// maxHeld bounds the bytes of their requests.
	maxHeld = 64 << 20
	// maxConns bounds the connections of a server.
	maxConns = 256
	// maxText bounds the text of a refusal, in bytes.
	maxText = 256 << 10

	// frameTimeout is how long a message may take from its first byte to its last.
	frameTimeout = 30 * time.Second
	// writeTimeout is how long a peer may not take what it is sent. It is at
	// least three quarters of that.
	writeTimeout = 60 * time.Second
	// endTimeout is how long a call may go on whose context has ended, once the
	// server has.
	endTimeout = 10 * time.Second
	// acceptPause is how long nobody is accepted after the machine had no means to.
	acceptPause = 50 * time.Millisecond
)
