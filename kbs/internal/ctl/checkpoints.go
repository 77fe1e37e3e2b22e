package ctl

import (
	"errors"
	"io/fs"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/given"
)

// maxCheckpoint bounds a remembered checkpoint, in bytes.
const maxCheckpoint = 64 << 10

// checkpointPath is where the last verified checkpoint of a broker is
// remembered: $XDG_STATE_HOME/kbs/checkpoints/<server>.
func checkpointPath(env func(string) string, server string) string {
	name := server
	if u, err := url.Parse(server); err == nil && u.Host != "" {
		name = u.Host + u.Path
	}
	return filepath.Join(xdg(env, "XDG_STATE_HOME", filepath.Join(".local", "state")), "kbs", "checkpoints", fileName(name))
}

// fileName turns a host and path into one name; different ones stay different.
func fileName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			b.WriteString("_" + strconv.FormatUint(uint64(c), 16) + "_")
		}
	}
	return b.String()
}

// recall returns the remembered checkpoint, nil if there is none. One that
// cannot be read is an error: forgetting it silently would forgive a broker
// that rewrote its log.
func recall(path string) ([]byte, error) {
	b, err := given.File(path, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// sizeOf reads the number of entries from a checkpoint whose signature nobody
// has checked: the second line of a C2SP tlog-checkpoint.
func sizeOf(checkpoint []byte) (int64, error) {
	lines := strings.SplitN(string(checkpoint), "\n", 3)
	if len(lines) == 3 {
		if n, err := strconv.ParseInt(lines[1], 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, fault.Newf(fault.Unavailable, "the broker's checkpoint is not a C2SP tlog-checkpoint")
}
