package debimage

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/google/go-containerregistry/pkg/compression"
)

var epoch = time.Unix(1700000000, 0)

// layerWriter writes a layer's tar. Packages of one layer share directories,
// so a directory is written once; and every path is brought under /usr as
// merged-/usr systems have it, whichever form the package still uses.
type layerWriter struct {
	*tar.Writer
	seen map[string]bool
	// shared takes it as it comes that packages own the same file.
	shared bool
}

func writeTar(file string, fill func(*layerWriter) error) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(f, 1<<20)
	w := &layerWriter{Writer: tar.NewWriter(buf), seen: map[string]bool{}}
	err = fill(w)
	return errors.Join(err, w.Close(), buf.Flush(), f.Close())
}

func (w *layerWriter) add(h *tar.Header, body io.Reader) error {
	name := merged(h.Name)
	if name == "." || strings.HasPrefix(name, "usr/share/doc/") && h.Typeflag != tar.TypeDir && !strings.HasSuffix(name, "copyright") {
		return nil
	}
	if w.seen[name] {
		if h.Typeflag == tar.TypeDir || w.shared {
			return nil
		}
		return fmt.Errorf("two packages own %s", name)
	}
	w.seen[name] = true
	c := *h
	c.Name, c.Format = name, tar.FormatPAX
	c.AccessTime, c.ChangeTime = time.Time{}, time.Time{}
	if c.Typeflag == tar.TypeLink {
		c.Linkname = merged(h.Linkname)
	}
	if name == "usr/sbin/nginx" && c.Typeflag == tar.TypeReg {
		c.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": netBindService()}
	}
	if err := w.WriteHeader(&c); err != nil {
		return err
	}
	_, err := io.Copy(w, body)
	return err
}

func (w *layerWriter) file(name string, mode int64, content string) error {
	return w.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch}, strings.NewReader(content))
}

func (w *layerWriter) dir(name string, mode int64, uid int) error {
	return w.add(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: uid, ModTime: epoch}, nothing)
}

var nothing = strings.NewReader("")

// merged maps bin, sbin, lib and lib64 to their places under usr.
func merged(name string) string {
	name = path.Clean(strings.TrimPrefix(strings.TrimPrefix(name, "."), "/"))
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		if name == top || strings.HasPrefix(name, top+"/") {
			return "usr/" + name
		}
	}
	return name
}

func mergedUsr(w *layerWriter) error {
	for _, d := range []string{"usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"} {
		if err := w.dir(d, 0o755, 0); err != nil {
			return err
		}
	}
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: top, Linkname: "usr/" + top, Mode: 0o777, ModTime: epoch}); err != nil {
			return err
		}
		w.seen[top] = true
	}
	return nil
}

// netBindService is a version 2 file capability that lets nginx bind low ports
// without being root: the xattr that the kernel keeps for `setcap
// cap_net_bind_service+ep`.
func netBindService() string {
	var b [20]byte
	binary.LittleEndian.PutUint32(b[0:], 0x02000001) // VFS_CAP_REVISION_2 | effective
	binary.LittleEndian.PutUint32(b[4:], 1<<10)      // permitted: CAP_NET_BIND_SERVICE
	return string(b[:])
}

// siteLayer holds what makes the image this service: accounts, nginx's
// configuration, and an entry point that puts a secret of the broker into the
// page before nginx starts.
func siteLayer(w *layerWriter) error {
	files := []struct {
		name string
		mode int64
		text string
	}{
		{"etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n"},
		{"etc/group", 0o644, "root:x:0:\nshadow:x:42:\nwww-data:x:33:\n"},
		{"etc/nginx/nginx.conf", 0o644, fmt.Sprintf(nginxConf, Port)},
		{"entrypoint", 0o755, entrypoint},
	}
	for _, d := range []string{"root", "tmp", "run", "srv", "srv/www", "var", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx"} {
		mode, uid := int64(0o755), 0
		if d == "tmp" {
			mode = 0o1777
		}
		if d == "var/lib/nginx" {
			uid = 33
		}
		if err := w.dir(d, mode, uid); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := w.file(f.name, f.mode, f.text); err != nil {
			return err
		}
	}
	return nil
}

const nginxConf = `daemon off;
user www-data;
worker_processes 1;
error_log stderr warn;
pid /tmp/nginx.pid;
events { worker_connections 64; }
http {
  access_log off;
  server {
    listen 127.0.0.1:%d;
    root /srv/www;
  }
}
`

const entrypoint = `#!/bin/sh
set -eu
secret=$(busybox wget -q -O - http://127.0.0.1:8006/cdh/resource/` + SecretPath + `)
printf '<h1>Served from a guest that proved itself</h1>\n<p>%s</p>\n' "$secret" > /srv/www/index.html
unset secret
echo "page ready"
exec nginx
`

// trimLayer takes away again what the lower layers brought: one file by a
// whiteout, one directory's contents by an opaque whiteout.
func trimLayer(w *layerWriter) error {
	for _, d := range []string{"usr", "usr/share", "usr/share/man", "etc", "etc/nginx", "etc/nginx/sites-available"} {
		if err := w.dir(d, 0o755, 0); err != nil {
			return err
		}
	}
	if err := w.file("usr/share/man/.wh..wh..opq", 0o644, ""); err != nil {
		return err
	}
	return w.file("etc/nginx/sites-available/.wh.default", 0o644, "")
}

// zstdLayer compresses a tar file with zstd.
func zstdLayer(file string) (v1.Layer, error) {
	raw, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	var buf bytes.Buffer
	enc, err := zstd.NewWriter(&buf)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(enc, raw); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return newZstd(buf.Bytes(), file)
}

func newZstd(blob []byte, file string) (v1.Layer, error) {
	plain, err := tarball.LayerFromFile(file, tarball.WithCompression(compression.None))
	if err != nil {
		return nil, err
	}
	diffID, err := plain.DiffID()
	if err != nil {
		return nil, err
	}
	return &zstdBlob{static.NewLayer(blob, types.OCILayerZStd), diffID}, nil
}

// zstdBlob is a static layer that knows the digest of its uncompressed tar.
type zstdBlob struct {
	v1.Layer
	diffID v1.Hash
}

func (z *zstdBlob) DiffID() (v1.Hash, error) { return z.diffID, nil }

func arch() string { return runtime.GOARCH }
