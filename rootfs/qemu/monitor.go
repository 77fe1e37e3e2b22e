package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// monitor speaks QMP, QEMU's control protocol: JSON objects, one a line
// (docs/interop/qmp-spec in QEMU). Commands go one at a time; events are skipped,
// for nothing here waits for one.
type monitor struct {
	conn net.Conn
	in   *bufio.Reader
}

// answer is what QEMU sends: a greeting, an event, or what became of a command.
type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

const maxAnswer = 1 << 20 // bytes

func dialMonitor(ctx context.Context, path string, vm *process) (*monitor, error) {
	m := &monitor{}
	if err := vm.until(ctx, commandTimeout, "connect to QEMU", func() (err error) {
		m.conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	}); err != nil {
		return nil, err
	}
	m.in = bufio.NewReaderSize(m.conn, maxAnswer)
	if err := m.do(ctx, "qmp_capabilities", nil, nil); err != nil { // the greeting before is skipped
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *monitor) close() error { return m.conn.Close() }

// commandTimeout bounds every command; long work is started by one and asked
// about by others.
const commandTimeout = 60 * time.Second

// do runs a command and decodes what it returns.
func (m *monitor) do(ctx context.Context, command string, arguments map[string]any, result any) error {
	deadline := time.Now().Add(commandTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := m.conn.SetDeadline(deadline); err != nil {
		return err
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		line, err := m.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("QMP %s: %w", command, err)
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("QMP %s: %w", command, err)
		}
		switch {
		case a.Error != nil:
			return fmt.Errorf("QMP %s: %s: %s", command, a.Error.Class, a.Error.Desc)
		case a.Return == nil: // the greeting, or an event
		case result == nil:
			return nil
		default:
			return json.Unmarshal(a.Return, result)
		}
	}
}
