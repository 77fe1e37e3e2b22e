package kata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// Guest hooks are programs of the guest's image that run around each container,
// outside of it and with all rights (kata-agent 2.15). The host says whether it
// wants them; where they lie is said by the measured command line alone.

const (
	maxHooks    = 64 // programs of a kind
	hookTimeout = 60 // seconds
)

// acceptHooks returns the hooks that the host asks for, nil for none.
func (s *Server) acceptHooks(path string) (*specs.Hooks, error) {
	switch {
	case path == "":
		return nil, nil
	case s.hooks == "":
		return nil, refusef(codes.PermissionDenied, "guest hooks are off: the measured command line names no directory of them (vouchsafe.guest_hooks)")
	case filepath.Clean(path) != filepath.Clean(s.hooks):
		return nil, refusef(codes.PermissionDenied, "guest hooks lie in another directory, which the measured command line names")
	}
	return readHooks(filepath.Clean(path))
}

// readHooks finds the programs in DIR/{prestart,poststart,poststop}, in the order
// of their names.
func readHooks(dir string) (*specs.Hooks, error) {
	out := &specs.Hooks{}
	for kind, list := range map[string]*[]specs.Hook{
		"prestart":  &out.Prestart, //nolint:staticcheck // deprecated, and what the field's hooks are
		"poststart": &out.Poststart,
		"poststop":  &out.Poststop,
	} {
		entries, err := os.ReadDir(filepath.Join(dir, kind))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("guest hooks: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, kind, e.Name())
			ok, err := isHook(path)
			if err != nil {
				return nil, fmt.Errorf("guest hooks: %w", err)
			}
			if !ok {
				continue
			}
			timeout := hookTimeout
			*list = append(*list, specs.Hook{Path: path, Args: []string{path, kind}, Timeout: &timeout})
		}
		if len(*list) > maxHooks {
			return nil, fmt.Errorf("guest hooks: %d programs in %s, at most %d are run", len(*list), kind, maxHooks)
		}
	}
	return out, nil
}

// isHook accepts programs that nobody but root can change.
func isHook(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return false, nil
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return false, fmt.Errorf("%s can be changed by others than root", path)
	}
	return true, nil
}
