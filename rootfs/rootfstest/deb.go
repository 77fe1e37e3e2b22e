package rootfstest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"

	"github.com/ulikunitz/xz"
)

// File is one of a package. A target makes it a symlink.
type File struct {
	Path    string
	Mode    int64
	Content []byte
	Target  string
}

// Deb returns a Debian package of these files.
func Deb(files ...File) []byte {
	var data bytes.Buffer
	z, err := xz.NewWriter(&data)
	check(err)
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "." + f.Path, Mode: f.Mode, Size: int64(len(f.Content)), Uname: "builder", Uid: 1000}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if f.Target != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Target, 0
		}
		check(t.WriteHeader(h))
		_, err := t.Write(f.Content)
		check(err)
	}
	check(t.Close())
	check(z.Close())
	return Archive("debian-binary", []byte("2.0\n"), "control.tar.xz", []byte("odd"), "data.tar.xz", data.Bytes())
}

// Archive returns an ar archive of members, each a name and its content.
func Archive(members ...any) []byte {
	var out strings.Builder
	out.WriteString("!<arch>\n")
	for i := 0; i < len(members); i += 2 {
		name, content := members[i].(string), members[i+1].([]byte)
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", name, 0, 0, 0, "100644", len(content), content)
		if len(content)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return []byte(out.String())
}

func check(err error) {
	if err != nil {
		panic(err) // writing to memory
	}
}
