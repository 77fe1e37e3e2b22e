package rpc

import (
	"encoding/binary"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// headroom is kept free before what an answer consists of, for what must stand
// before it and depends on its length: the frame's header, and tag and length of
// two fields, the payload's in the response and the bytes' in the payload.
const headroom = headerSize + 2*(2+binary.MaxVarintLen32)

// room is memory for an answer.
type room struct{ b []byte }

// Rooms of two sizes are kept for others: of the answers with a few fields, and
// of those with a container's output in the pieces that runtimes ask for.
const (
	smallRoom = 1 << 10
	largeRoom = 64<<10 + headroom
)

var (
	smallRooms = sync.Pool{New: func() any { return &room{make([]byte, smallRoom)} }}
	largeRooms = sync.Pool{New: func() any { return &room{make([]byte, largeRoom)} }}
)

// getRoom returns memory for headroom and n bytes more at least.
func getRoom(n int) *room {
	switch {
	case n+headroom <= smallRoom:
		return smallRooms.Get().(*room) //nolint:forcetypeassert // the pool's only type
	case n+headroom <= largeRoom:
		return largeRooms.Get().(*room) //nolint:forcetypeassert // likewise
	}
	return &room{make([]byte, n+headroom)}
}

func (r *room) put() {
	switch {
	case r == nil:
	case len(r.b) == smallRoom:
		smallRooms.Put(r)
	case len(r.b) == largeRoom:
		largeRooms.Put(r)
	}
}

// Fields of ttrpc.Response (request.proto).
const (
	fieldStatus = 1 // google.rpc.Status; absent for success
	// The payload's is 2.
	fieldAnswer = 2
)

// frame builds the frame around the body, b[headroom:], and returns it. The body
// stands in fields within each other, the innermost first; an empty one is
// absent, as protobuf has it. What is larger than a message may be is told.
func frame(b []byte, stream uint32, within ...protowire.Number) ([]byte, error) {
	at := headroom
	for _, num := range within {
		size := len(b) - at
		if size == 0 {
			break
		}
		at -= protowire.SizeVarint(uint64(size))
		protowire.AppendVarint(b[at:at], uint64(size))
		at -= protowire.SizeTag(num)
		protowire.AppendTag(b[at:at], num, protowire.BytesType)
	}
	size := len(b) - at
	if size > maxMessage {
		return nil, status.Errorf(codes.ResourceExhausted, "message length %d exceed maximum message size of %d", size, maxMessage)
	}
	at -= headerSize
	header{length: uint32(size), stream: stream, kind: kindResponse}.put(b[at:]) //nolint:gosec // within maxMessage
	return b[at:], nil
}

// appendMessage puts a message behind the headroom of r, which may have to become
// larger for it.
func (r *room) appendMessage(m proto.Message) (body []byte, err error) {
	body, err = proto.MarshalOptions{}.MarshalAppend(r.b[:headroom], m)
	if err != nil {
		return nil, status.Error(codes.Internal, "the answer cannot be written")
	}
	return body, nil
}
