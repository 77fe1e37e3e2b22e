package sandbox

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// pausePath is where the pause program lies in its root.
const pausePath = "/pause"

// PauseArgument makes the agent's own program act as the pause program: the
// first process of a pod, which holds its namespaces and does nothing.
const PauseArgument = "pause"

// guestPull is the driver option of a guest pull (kata-agent 2.11).
type guestPull struct {
	Metadata map[string]string `json:"metadata"`
}

// maxMetadata bounds the annotations that come with one image.
const maxMetadata = 1 << 20

// isPause tells the sandbox's own container from one with an image: its source
// is "pause", or its annotations say so.
func isPause(st *agent.Storage) (bool, error) {
	if st.GetSource() == "pause" {
		return true, nil
	}
	for _, opt := range st.GetDriverOptions() {
		raw, ok := strings.CutPrefix(opt, driverGuestPull+"=")
		if !ok {
			continue
		}
		var g guestPull
		if len(raw) > maxMetadata {
			return false, invalidf("the metadata of the image is too large")
		}
		if err := json.Unmarshal([]byte(raw), &g); err != nil {
			return false, invalidf("the metadata of the image is malformed")
		}
		if g.Metadata["io.kubernetes.cri.container-type"] == "sandbox" || g.Metadata["io.kubernetes.cri-o.ContainerType"] == "sandbox" {
			return true, nil
		}
	}
	return false, nil
}

// pauseRoot makes a root that holds nothing but the agent's own program. No
// image is needed and nothing is copied: the file is bind-mounted.
func pauseRoot(bundle, binary string) (undo, error) {
	if err := checkStatic(binary); err != nil {
		return nil, err
	}
	rootfs := filepath.Join(bundle, "rootfs")
	target := filepath.Join(rootfs, pausePath)
	remove := func(context.Context) error {
		if err := unmount(target); err != nil {
			return err
		}
		return os.RemoveAll(rootfs)
	}
	err := os.Mkdir(rootfs, 0o755)
	if err == nil {
		err = os.WriteFile(target, nil, 0o555)
	}
	if err == nil {
		err = unix.Mount(binary, target, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the pause container: %w", err), remove(context.Background()))
	}
	return remove, nil
}

// checkStatic gives a clear reason where the kernel would only say "no such
// file": a program that needs an interpreter finds none in an empty root.
func checkStatic(path string) error {
	if path == "" {
		return errors.New("no program is configured for the pause container")
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("the pause program: %w", err)
	}
	defer func() { _ = f.Close() }()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("the pause program %s is linked dynamically; build it with CGO_ENABLED=0", path)
	}
	return nil
}

// PauseProcess is what a pause container runs, whatever the host's spec says:
// our program, without privileges.
func PauseProcess() *specs.Process {
	const nobody = 65535
	return &specs.Process{
		User:            specs.User{UID: nobody, GID: nobody},
		Args:            []string{pausePath, PauseArgument},
		Env:             []string{"GOMAXPROCS=1"},
		Cwd:             "/",
		NoNewPrivileges: true,
		Capabilities:    &specs.LinuxCapabilities{},
	}
}
