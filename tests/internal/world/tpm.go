package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/qemu"
)

// tpmPath returns a path below the directory of TPMs.
func (w *World) tpmPath(name string) string {
	if w.TPMs == "" {
		return w.Path(name)
	}
	return filepath.Join(w.TPMs, name)
}

// TPMs of the stage's machines are made by one manufacturer, in its directory.
func (w *World) manufacturer() string { return w.tpmPath("tpm-maker") }

// NewTPM makes a TPM and returns the directory of its state.
func (w *World) NewTPM(ctx context.Context, label string) (string, error) {
	dir := w.tpmPath("tpm-" + label)
	return dir, qemu.Manufacture(ctx, dir, w.manufacturer())
}

// EnrolledTPM makes a TPM and has its key enrolled, unless that was done before in
// the same directory. It returns the directory of its state, and the file of Enrol.
func (w *World) EnrolledTPM(ctx context.Context) (state, keys string, err error) {
	state = w.tpmPath("tpm-enrolled")
	keys = filepath.Join(state, enrolledKeys)
	if _, err := os.Stat(keys); err == nil {
		return state, keys, nil
	}
	if _, err := w.NewTPM(ctx, "enrolled"); err != nil {
		return "", "", err
	}
	keys, err = w.Enrol(ctx, state)
	return state, keys, err
}

const enrolledKeys = "enrolled.pem"

// Enrol has the attestation key of a TPM enrolled by credential activation, and
// returns the file that the broker's configuration names. Every message is a file,
// as between two machines.
func (w *World) Enrol(ctx context.Context, tpm string) (string, error) {
	keys := filepath.Join(tpm, enrolledKeys)
	return keys, qemu.UseTPM(tpm, tpm, func(socket string) error {
		file := func(name string) string { return filepath.Join(tpm, name) }
		roots := file("maker.pem")
		if err := w.writeMaker(roots); err != nil {
			return err
		}
		for _, step := range []struct {
			out  string
			args []string
		}{
			{file("request.json"), []string{"request", "--tpm-device", socket}},
			{file("challenge.json"), []string{"challenge", file("request.json"), "--manufacturer", "maker=" + roots, "--allow-no-revocation", "--pending", file("pending.json")}},
			{file("answer.json"), []string{"answer", file("challenge.json"), "--tpm-device", socket}},
			{keys, []string{"finish", file("answer.json"), "--pending", file("pending.json")}},
		} {
			out, err := w.Run(ctx, "measure", append([]string{"enroll"}, step.args...)...)
			if err != nil {
				return err
			}
			if err := os.WriteFile(step.out, []byte(out), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeMaker writes the manufacturer's certificates into one file.
func (w *World) writeMaker(file string) error {
	var bundle []byte
	for _, name := range []string{qemu.RootFile, qemu.IssuerFile} {
		pem, err := os.ReadFile(filepath.Join(w.manufacturer(), name))
		if err != nil {
			return err
		}
		bundle = append(bundle, pem...)
	}
	return os.WriteFile(file, bundle, 0o600)
}

// EnrolledKeys is the broker's configuration that trusts the keys of a file.
func EnrolledKeys(file string) string {
	return fmt.Sprintf("[verifier.tpm]\nenabled = true\nenrolled_keys = [{name = \"fleet\", path = %q}]\n", file)
}
