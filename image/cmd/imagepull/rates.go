package main

import (
	"archive/tar"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/inflate"
)

// rates is the command line of `imagepull rates`.
type rates struct{ gzip, zstd, tar, dir, url string }

func (r *rates) flags(f *pflag.FlagSet) {
	f.StringVar(&r.gzip, "gzip", "", "gzip files to inflate, separated by commas")
	f.StringVar(&r.zstd, "zstd", "", "zstd files to decode")
	f.StringVar(&r.tar, "tar", "", "archives whose files are made below --dir")
	f.StringVar(&r.dir, "dir", "", "an empty directory")
	f.StringVar(&r.url, "url", "", "what is received")
}

// cost is the CPU time of a part of the work: seconds for bytes.
type cost struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
}

const bulk = 512 << 20 // bytes that are hashed and deciphered

// run prints what each part costs on one core, as JSON: in bytes received,
// hashed, deciphered; in bytes that come out of decoders; in bytes of archives.
func (r *rates) run(ctx context.Context, out io.Writer) error {
	parts := map[string]func() (int64, error){
		"hash": hash, "cipher": decipher,
		"receive": func() (int64, error) { return receive(ctx, r.url) },
		"gzip": func() (int64, error) {
			return decode(r.gzip, func(f io.Reader) (io.Reader, func(), error) {
				z, err := inflate.NewReader(f)
				return z, func() {}, err
			})
		},
		"zstd": func() (int64, error) {
			return decode(r.zstd, func(f io.Reader) (io.Reader, func(), error) {
				z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
				return z, z.Close, err
			})
		},
		"files": func() (int64, error) {
			return each(r.tar, func(i int, archive string) (int64, error) {
				return makeFiles(archive, filepath.Join(r.dir, fmt.Sprint(i)))
			})
		},
	}
	for name, given := range map[string]string{"receive": r.url, "gzip": r.gzip, "zstd": r.zstd, "files": r.tar} {
		if given == "" {
			delete(parts, name)
		}
	}
	all := map[string]cost{}
	for name, part := range parts {
		c, err := timed(part)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all[name] = c
	}
	return json.NewEncoder(out).Encode(all)
}

func timed(part func() (int64, error)) (cost, error) {
	before, err := cpu()
	if err != nil {
		return cost{}, err
	}
	n, err := part()
	if err != nil {
		return cost{}, err
	}
	after, err := cpu()
	return cost{Seconds: (after - before).Seconds(), Bytes: n}, err
}

func cpu() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

func hash() (int64, error) {
	h, b := sha256.New(), make([]byte, 256<<10)
	for n := 0; n < bulk; n += len(b) {
		_, _ = h.Write(b)
	}
	return bulk, nil
}

func decipher() (int64, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	s, b := cipher.NewCTR(block, make([]byte, aes.BlockSize)), make([]byte, 256<<10)
	for n := 0; n < bulk; n += len(b) {
		s.XORKeyStream(b, b)
	}
	return bulk, nil
}

func receive(ctx context.Context, url string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return drain(resp.Body)
}

// each does something with every file of a list and adds up the bytes.
func each(list string, do func(i int, file string) (int64, error)) (sum int64, _ error) {
	for i, file := range strings.Split(list, ",") {
		n, err := do(i, file)
		if sum += n; err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func decode(list string, open func(io.Reader) (io.Reader, func(), error)) (int64, error) {
	return each(list, func(_ int, file string) (int64, error) {
		f, err := os.Open(file)
		if err != nil {
			return 0, err
		}
		defer func() { _ = f.Close() }()
		r, free, err := open(f)
		if err != nil {
			return 0, err
		}
		defer free()
		return drain(r)
	})
}

func drain(r io.Reader) (int64, error) {
	return io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, 256<<10))
}

// makeFiles unpacks an archive with nothing of what makes that safe and right:
// no owners, modes, times, attributes, checks.
func makeFiles(archive, dir string) (n int64, _ error) {
	f, err := os.Open(archive)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	b := make([]byte, 256<<10)
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += 512 + (h.Size+511)/512*512
		if err := makeFile(filepath.Join(dir, h.Name), h, tr, b); err != nil {
			return n, err
		}
	}
}

func makeFile(path string, h *tar.Header, body io.Reader, b []byte) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeReg:
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{body}, b)
		return errors.Join(err, f.Close())
	}
	return nil
}
