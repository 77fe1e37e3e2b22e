package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// readFrames reads a container's output with as little as the protocol allows of
// a client, which shows what a server is able to: the library's own client is
// slower than either server.
func readFrames(id string) reading {
	return func(_ context.Context, conn net.Conn, size int) (total int64, err error) {
		defer func() { err = errors.Join(err, conn.Close()) }()
		payload, err := proto.Marshal(&agent.ReadStreamRequest{ContainerId: id, Len: uint32(size)})
		if err != nil {
			return 0, err
		}
		request, err := proto.Marshal(&ttrpc.Request{Service: "grpc.AgentService", Method: "ReadStdout", Payload: payload})
		if err != nil {
			return 0, err
		}
		const header, kindRequest = 10, 1
		frame := append(make([]byte, header), request...)
		binary.BigEndian.PutUint32(frame, uint32(len(request)))
		frame[8] = kindRequest
		buf := make([]byte, size+100)
		for stream := uint32(1); ; stream += 2 {
			binary.BigEndian.PutUint32(frame[4:], stream)
			if _, err := conn.Write(frame); err != nil {
				return total, err
			}
			if _, err := io.ReadFull(conn, buf[:header]); err != nil {
				return total, err
			}
			length := int(binary.BigEndian.Uint32(buf))
			if length > len(buf) {
				return total, fmt.Errorf("an answer of %d bytes", length)
			}
			if _, err := io.ReadFull(conn, buf[:length]); err != nil {
				return total, err
			}
			n, err := answered(buf[:length])
			if err != nil || n == 0 {
				return total, err
			}
			total += int64(n)
		}
	}
}

// answered returns how many bytes of output are in a response: field 1 of the
// message in its field 2.
func answered(response []byte) (int, error) {
	const status, payload = 1, 2
	if len(response) == 0 {
		return 0, nil
	}
	num, _, n := protowire.ConsumeTag(response)
	if n < 0 || num != payload {
		if num == status {
			return 0, fmt.Errorf("a refusal: %q", response)
		}
		return 0, errors.New("no response")
	}
	message, n := protowire.ConsumeBytes(response[n:])
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	if len(message) == 0 {
		return 0, nil
	}
	if _, _, n = protowire.ConsumeTag(message); n < 0 {
		return 0, protowire.ParseError(n)
	}
	data, n := protowire.ConsumeBytes(message[n:])
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	return len(data), nil
}
