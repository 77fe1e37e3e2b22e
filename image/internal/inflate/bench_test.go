package inflate

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// layer is a gzip -6 of a tar of this toolchain: sources, archives and
// programs, as much a layer as there is one on every machine.
var layer = sync.OnceValues(func() (compressed, raw []byte) {
	const limit = 96 << 20
	goroot, _ := exec.Command("go", "env", "GOROOT").Output()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, part := range []string{"bin", "pkg/tool", "src"} {
		root := filepath.Join(strings.TrimSpace(string(goroot)), part)
		share := out.Len() + limit/3
		_ = filepath.Walk(root, func(name string, info os.FileInfo, err error) error {
			if err != nil || !info.Mode().IsRegular() {
				return err
			}
			if out.Len() > share {
				return filepath.SkipAll
			}
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
				return err
			}
			_, err = w.Write(content)
			return err
		})
	}
	_ = w.Close()
	var z bytes.Buffer
	zw := stdgzip.NewWriter(&z)
	_, _ = zw.Write(out.Bytes())
	_ = zw.Close()
	return z.Bytes(), out.Bytes()
})

// processorTime is what the process has used: it stands other load on the
// machine better than a clock does.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReader compares readers on one layer, from a source that is a reader
// and nothing more, as in the pipeline. MB are of what comes out.
func BenchmarkReader(b *testing.B) {
	compressed, raw := layer()
	for _, reader := range []struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		{"this", func(r io.Reader) (io.Reader, error) { return NewReader(r) }},
		{"klauspost", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"standard", func(r io.Reader) (io.Reader, error) { return stdgzip.NewReader(r) }},
	} {
		b.Run(reader.name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			buf := make([]byte, 64<<10)
			start := processorTime()
			for b.Loop() {
				r, err := reader.open(struct{ io.Reader }{bytes.NewReader(compressed)})
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
				if err != nil || n != int64(len(raw)) {
					b.Fatalf("%d bytes of %d: %v", n, len(raw), err)
				}
			}
			b.ReportMetric(float64(len(raw))*float64(b.N)/1e6/(processorTime()-start).Seconds(), "MB/cpu-s")
		})
	}
}
