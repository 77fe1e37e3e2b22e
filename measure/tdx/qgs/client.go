package qgs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// DefaultPort is the vsock port of the service, at the host, as its own
// configuration has it.
const DefaultPort = 4050

// Timeout bounds one quote, the connection included. The service takes a few
// milliseconds, and some more when guests queue for it.
const Timeout = 5 * time.Second

// Dialer opens a connection to the service, by vsock in a guest.
type Dialer func(ctx context.Context) (net.Conn, error)

// Quote asks for the quote of a TDREPORT.
func Quote(ctx context.Context, dial Dialer, report []byte) (_ []byte, err error) {
	req, err := request(report)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the quote service: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// A caller that goes away takes the connection's time away.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := exchange(conn, req)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, fmt.Errorf("ask the quote service: %w", err)
	}
	return parseAnswer(answer)
}

// exchange sends one message and reads one: each comes after its length, four
// bytes big endian.
func exchange(conn io.ReadWriter, req []byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(req))) //nolint:gosec // small
	if _, err := conn.Write(append(frame, req...)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, frame); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(frame)
	if n > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMessage, n, maxMessage)
	}
	answer := make([]byte, n)
	_, err := io.ReadFull(conn, answer)
	return answer, err
}
