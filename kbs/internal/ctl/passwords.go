package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/keyfile"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const maxPassword = 1024 // bytes

// passwordFlags say where the passwords of private keys are. They are never
// arguments, which every user of the machine can read.
type passwordFlags struct{ files []string }

func (f *passwordFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "password-file", nil,
		"`FILE` with the password of a private key or the PIN of a token, one line (repeatable: each is tried for files; default: the terminal is asked)")
}

// readKey reads a private key and, if it has a password, opens it.
func (f *passwordFlags) readKey(path string) (secret.Bytes, error) {
	doc, err := readKey(path, maxConfig)
	if err != nil || !keyfile.Locked(doc) {
		return doc, err
	}
	defer doc.Destroy()
	for _, file := range f.files {
		word, err := readPassword(file)
		if err != nil {
			return secret.Bytes{}, err
		}
		key, err := keyfile.Unlock(doc, word)
		word.Destroy()
		if !errors.Is(err, keyfile.ErrPassword) {
			return key, keyError(path, err)
		}
	}
	if len(f.files) > 0 {
		return secret.Bytes{}, keyError(path, keyfile.ErrPassword)
	}
	if key, err := keyfile.Unlock(doc, secret.New(nil)); !errors.Is(err, keyfile.ErrPassword) {
		return key, keyError(path, err) // cosign's word for "no password" is an empty one
	}
	word, err := askPassword(path)
	if err != nil {
		return secret.Bytes{}, usagef("%s has a password: %w", path, err).hint("--password-file FILE")
	}
	defer word.Destroy()
	key, err := keyfile.Unlock(doc, word)
	return key, keyError(path, err)
}

func keyError(path string, err error) error {
	if err == nil {
		return nil
	}
	return usagef("%s: %w", path, err)
}

// readPassword reads the one line of a file that nobody else can read.
func readPassword(file string) (secret.Bytes, error) {
	b, err := readKey(file, maxPassword)
	if err != nil {
		return b, err
	}
	defer b.Destroy()
	return oneLine(b.Reveal(), file)
}

func oneLine(b []byte, from string) (secret.Bytes, error) {
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 || bytes.ContainsRune(b, '\n') {
		return secret.Bytes{}, usagef("%s: a password is one line", from)
	}
	return secret.Copy(b), nil
}

// askPassword asks at the terminal, which does not show the answer.
func askPassword(path string) (secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return secret.Bytes{}, errors.New("there is no terminal to ask for it at")
	}
	defer func() { _ = tty.Close() }()
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("ask at the terminal: %w", err)
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return secret.Bytes{}, fmt.Errorf("ask at the terminal: %w", err)
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }()
	if _, err := fmt.Fprintf(tty, "password of %s: ", clean(path)); err != nil {
		return secret.Bytes{}, err
	}
	answer := make([]byte, maxPassword)
	defer clear(answer)
	n, err := tty.Read(answer) // one line, as terminals give it
	_, _ = io.WriteString(tty, "\n")
	if err != nil {
		return secret.Bytes{}, errors.New("no password was given")
	}
	return oneLine(answer[:n], "the terminal")
}
