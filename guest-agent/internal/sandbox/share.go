package sandbox

import (
	"os"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// shareTag is the name of a virtio-fs share: 36 bytes in its configuration space
// (virtio 1.2, 5.11.4).
var shareTag = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,35}$`)

// share mounts a directory of the host's (virtio-fs). The host can change it at
// any time: nothing in it is worth more than the host's word.
func (s *Sandbox) share(t target, st *agent.Storage) (undo, error) {
	if !shareTag.MatchString(st.GetSource()) {
		return nil, invalidf("%.64q is no tag of a share", st.GetSource())
	}
	if st.GetFstype() != "virtiofs" {
		return nil, invalidf("filesystem %.32q of a share is not supported", st.GetFstype())
	}
	o, err := parseOptions(st.GetOptions(), false)
	if err != nil {
		return nil, err
	}
	if o.data != "" {
		return nil, invalidf("options %.128q of a share are not supported", o.data)
	}
	var dir *os.File
	all := t.rel == sharedDir // everything that the host shares
	if all {
		dir, err = t.openShared()
	} else {
		dir, err = t.open()
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	flags := t.flags()
	if all {
		flags = unix.MS_NODEV // roots of containers lie below
	}
	path, err := mountOn(dir, st.GetSource(), "virtiofs", o.flags|flags, "")
	if err != nil {
		return nil, err
	}
	return t.unmounter(path), nil
}
