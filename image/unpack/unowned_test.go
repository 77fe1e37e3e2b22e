package unpack

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The child of this variable is root in a user namespace that has no other user.
const aloneEnv = "UNPACK_TEST_ALONE"

// TestUnowned unpacks where nothing but one's own user can be given: what root
// alone may make is left out, and nothing else is.
func TestUnowned(t *testing.T) {
	if os.Getenv(aloneEnv) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestUnowned$", "-test.v")
		cmd.Env = append(os.Environ(), aloneEnv+"=1", "TMPDIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	owned := func(e entry, mode int64) entry {
		e.Uid, e.Gid, e.Mode = 1000, 1001, mode
		return e
	}
	device := entry{tar.Header{Typeflag: tar.TypeChar, Name: "closed/null", Devmajor: 1, Devminor: 3, Mode: 0o666, Uid: 1000}, ""}
	fifo := entry{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600, Gid: 7}, ""}
	p := newPlace(t)
	res, err := Apply(t.Context(), bytes.NewReader(archive(t,
		owned(dir("."), 0o555), owned(dir("closed"), 0o555), device, fifo,
		withXattr(owned(file("closed/su", "x"), 0o6755), "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		withXattr(owned(file("closed/data", "x"), 0o644), "user.note", "kept"),
		owned(dir("shared"), 0o2775), symlink("link", "closed/su"), link("null2", "closed/null"),
		file("implied/deep/.wh.gone", ""), dir("opaque"), file("opaque/.wh..wh..opq", ""),
	)), p.layer, Limits{}, Unowned())
	must(t, err)
	if len(res.Implied) != 2 {
		t.Errorf("implied %q", res.Implied)
	}
	for name, want := range map[string]uint32{
		".": unix.S_IFDIR | 0o555, "closed": unix.S_IFDIR | 0o555, "closed/null": unix.S_IFREG | 0o666, "null2": unix.S_IFREG | 0o666, "fifo": unix.S_IFIFO | 0o600,
		"closed/su": unix.S_IFREG | 0o755, "shared": unix.S_IFDIR | 0o2775, "implied/deep/gone": unix.S_IFCHR, "link": unix.S_IFLNK | 0o777,
	} {
		st := p.stat(t, name)
		if st.Mode&^0o777 != want&^0o777 || name != "implied/deep/gone" && st.Mode != want {
			t.Errorf("%s has mode %o, want %o", name, st.Mode, want)
		}
		if st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	if st := p.stat(t, "closed/su"); st.Mtim.Nano() != sometime.UnixNano() {
		t.Error("times were left out")
	}
	if got := p.xattr("closed/data", "user.note"); got != "kept" {
		t.Errorf("an attribute of the user's is %q", got)
	}
	if got := p.xattr("closed/su", "security.capability"); got != "" {
		t.Errorf("a capability was given: %x", got)
	}
	if got := p.xattr("opaque", XattrOpaqueUser); got != "y" {
		t.Errorf("the mark is %q", got)
	}
	// Archives cannot bring the mark.
	bad := archive(t, withXattr(dir("d"), XattrOpaqueUser, "y"))
	must(t, os.Mkdir(filepath.Join(p.outer, "other"), 0o755))
	if _, err := Apply(t.Context(), bytes.NewReader(bad), filepath.Join(p.outer, "other"), Limits{}, Unowned()); err == nil {
		t.Error("an archive marked a directory")
	}
}
