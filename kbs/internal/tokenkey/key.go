package tokenkey

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"

	wire "github.com/vouchsafe-cc/vouchsafe/kbs/api/tokenkey"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// A Key decrypts with a private key that stays in its token. It is a
// [crypto.Decrypter] for RSA-OAEP with SHA-1 or SHA-256 and no label; everything
// else is refused. It is safe for concurrent use: questions take turns.
type Key struct {
	uri    URI
	public *rsa.PublicKey
	cmd    *exec.Cmd
	in     io.WriteCloser

	mu  sync.Mutex
	out *bufio.Reader
	err error // sticky: the conversation has ended
}

// Open starts the program, which logs in at the token once with the PIN, and
// learns the public key. The program ends with ctx or Close, whichever is first,
// and what it says of itself goes to stderr.
func Open(ctx context.Context, program string, u URI, pin secret.Bytes, stderr io.Writer) (*Key, error) {
	k := &Key{uri: u, cmd: exec.CommandContext(ctx, program, "open")}
	k.cmd.Stderr = stderr
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	k.out = wire.NewReader(out)
	if err := k.begin(pin); err != nil {
		_ = k.Close() // it has said why already
		return nil, err
	}
	return k, nil
}

func (k *Key) begin(pin secret.Bytes) error {
	var opened wire.Opened
	which := wire.Open{Module: k.uri.Module, Token: k.uri.Token, Object: k.uri.Object, ID: k.uri.ID, PIN: pin.Reveal()}
	if err := k.ask(which, &opened); err != nil {
		return err
	}
	if opened.Error != "" {
		return fmt.Errorf("%s: %.300s", k.uri, opened.Error)
	}
	key, err := x509.ParsePKIXPublicKey(opened.Public)
	if err != nil {
		return fmt.Errorf("%s: its public key: %w", k.uri, err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("%s: a key of type %T, want RSA", k.uri, key)
	}
	k.public = public
	return nil
}

// ask sends a question and reads the answer to it.
func (k *Key) ask(question, answer any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.err = wire.Send(k.in, question)
	if k.err == nil {
		k.err = wire.Receive(k.out, answer)
	}
	if k.err != nil {
		k.err = fmt.Errorf("%s: kbs-pkcs11 does not answer: %w", k.uri, k.err)
	}
	return k.err
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Decrypt has the token open what was sealed under the public key. opts is an
// [*rsa.OAEPOptions].
func (k *Key) Decrypt(_ io.Reader, sealed []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	oaep, ok := opts.(*rsa.OAEPOptions)
	if !ok || len(oaep.Label) > 0 || oaep.MGFHash != 0 && oaep.MGFHash != oaep.Hash {
		return nil, errors.New("a token's key is used for OAEP without a label alone")
	}
	hashes := map[crypto.Hash]string{crypto.SHA1: wire.SHA1, crypto.SHA256: wire.SHA256}
	name, ok := hashes[oaep.Hash]
	if !ok {
		return nil, fmt.Errorf("a token's key is not used for OAEP with %v", oaep.Hash)
	}
	if len(sealed) != k.public.Size() { // a longer one would end the conversation
		return nil, fmt.Errorf("%s: what is sealed has %d bytes, want %d", k.uri, len(sealed), k.public.Size())
	}
	var answer wire.Decrypted
	if err := k.ask(wire.Decrypt{Hash: name, Sealed: sealed}, &answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %.300s", k.uri, answer.Error)
	}
	return answer.Plain, nil
}

// Close lets the program log out and end, and waits for it.
func (k *Key) Close() error {
	err := k.in.Close()
	return errors.Join(err, k.cmd.Wait())
}
