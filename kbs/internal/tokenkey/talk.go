package tokenkey

import (
	"bufio"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// lingering is how long a process that the token's library left behind may keep
// the program's streams open, when the program has ended.
const lingering = 2 * time.Second

// A talk is a conversation with the program about one key.
type talk struct {
	uri URI
	cmd *exec.Cmd
	in  io.WriteCloser

	mu  sync.Mutex
	out *bufio.Reader
	err error // sticky: the conversation has ended
}

// start begins one, for one use of the key, and learns its public half.
func start(ctx context.Context, program string, u URI, use string, pin secret.Bytes, stderr io.Writer) (*talk, crypto.PublicKey, error) {
	t := &talk{uri: u, cmd: exec.CommandContext(ctx, program, "open")}
	t.cmd.Stderr = stderr
	t.cmd.WaitDelay = lingering
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", program, err)
	}
	t.out = wire.NewReader(out)
	key, err := t.begin(use, pin)
	if err != nil {
		_ = t.Close() // it has said why already
		return nil, nil, err
	}
	return t, key, nil
}

func (t *talk) begin(use string, pin secret.Bytes) (crypto.PublicKey, error) {
	var opened wire.Opened
	which := wire.Open{Module: t.uri.Module, Which: t.uri.Which, Object: t.uri.Object, ID: t.uri.ID, Use: use, PIN: pin.Reveal()}
	if err := t.ask(which, &opened); err != nil {
		return nil, err
	}
	if opened.Error != "" {
		return nil, t.refusal(opened.Error)
	}
	key, err := x509.ParsePKIXPublicKey(opened.Public)
	if err != nil {
		return nil, fmt.Errorf("%s: its public key: %w", t.uri, err)
	}
	return key, nil
}

// ask sends a question and reads the answer to it.
func (t *talk) ask(question, answer any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	t.err = wire.Send(t.in, question)
	if t.err == nil {
		t.err = wire.Receive(t.out, answer)
	}
	if t.err != nil {
		t.err = fmt.Errorf("%s: kbs-pkcs11 does not answer: %w", t.uri, t.err)
	}
	return t.err
}

// refusal is what the program said.
func (t *talk) refusal(text string) error { return fmt.Errorf("%s: %.300s", t.uri, text) }

// Close lets the program log out and end, and waits for it.
func (t *talk) Close() error {
	err := t.in.Close()
	return errors.Join(err, t.cmd.Wait())
}
