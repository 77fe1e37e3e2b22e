package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// startTPM starts swtpm with the machine's state. It ends with QEMU's connection.
func startTPM(cfg Config) (*process, error) {
	return startSwtpm(cfg.TPM, cfg.path(fileTPM), cfg.path("swtpm.log"), "--ctrl", "type=unixio,fd=3", "--terminate")
}

// startSwtpm starts it with its file 3 listening on a socket. That listens
// before swtpm takes it over, so nobody waits for it.
func startSwtpm(state, path, log string, args ...string) (*process, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // swtpm has it from now on
	socket, err := listener.File()
	if err = errors.Join(err, listener.Close()); err != nil {
		return nil, err
	}
	cmd := exec.Command("swtpm", append([]string{"socket", "--tpm2", "--tpmstate", "dir=" + state}, args...)...) //nolint:gosec,noctx // the caller ends it
	cmd.ExtraFiles = []*os.File{socket}
	p, err := start(cmd, log)
	return p, errors.Join(err, socket.Close())
}

// UseTPM serves the TPM with a state directory on a socket, to programs on this
// host, while f runs: a TPM that is in no machine, whose keys are to be enrolled.
// What it keeps between resets is kept in the directory.
func UseTPM(state, dir string, f func(socket string) error) error {
	path := filepath.Join(dir, "tpm.sock")
	p, err := startSwtpm(state, path, filepath.Join(dir, "swtpm.log"), "--server", "type=unixio,fd=3", "--flags", "not-need-init,startup-clear")
	if err != nil {
		return err
	}
	defer p.kill()
	return f(path)
}

// stateFile is what a TPM keeps between resets, in its directory.
const stateFile = "tpm2-00.permall"

// CopyTPM copies the state of a TPM that is not in use into a new directory, for
// machines that run at the same time and are to take each other for the same one.
func CopyTPM(state, to string) error {
	raw, err := os.ReadFile(filepath.Join(state, stateFile))
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, stateFile), raw, 0o600)
}

// Manufacture makes the state of a new software TPM in a directory: with an
// endorsement key, and its certificate by a manufacturer whose CA lies in another
// directory and is made there the first time. The CA's certificates are
// [RootFile] and [IssuerFile].
func Manufacture(ctx context.Context, state, manufacturer string) error {
	for _, dir := range []string{state, manufacturer} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	config, err := writeManufacturer(manufacturer)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", "--tpm2", "--tpmstate", state, "--config", config, //nolint:gosec // paths of the caller's
		"--create-ek-cert", "--pcr-banks", "sha256", "--overwrite", "--lock-nvram")
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+manufacturer)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swtpm_setup: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Certificates in a manufacturer's directory, PEM: the root, and the CA below it
// that signs those of endorsement keys.
const (
	RootFile   = "swtpm-localca-rootca-cert.pem"
	IssuerFile = "issuercert.pem"
)

// writeManufacturer writes the configuration of swtpm's local CA.
func writeManufacturer(dir string) (setup string, err error) {
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return "", err
	}
	setup = filepath.Join(dir, "swtpm_setup.conf")
	ca, options := filepath.Join(dir, "swtpm-localca.conf"), filepath.Join(dir, "swtpm-localca.options")
	for file, text := range map[string]string{
		setup: fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n", tool, ca, options),
		ca: fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/%[2]s\ncertserial = %[1]s/certserial\n",
			dir, IssuerFile),
		options: "--platform-manufacturer Vouchsafe\n--platform-version 1\n--platform-model simulated\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return setup, nil
}
