package predict

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"testing"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
)

// What a prediction costs beside the hashes that it cannot avoid: of a kernel of
// 12 MB and an initrd of 48 MB, SHA-256 of both files, Authenticode of the kernel
// as a TPM, and as a TD with either header, measures it, and of the initrd
// SHA-384 too.
func BenchmarkMake(b *testing.B) {
	in := inputs(b)
	in.Kernel = boottest.Kernel(bytes.Repeat([]byte("k"), 12<<20))
	in.Initrd = bytes.Repeat([]byte("i"), 48<<20)
	in.Headers = []Header{Plain, Patched}
	b.SetBytes(int64(len(in.Kernel) + len(in.Initrd)))
	var hashes time.Duration
	for b.Loop() {
		if _, err := Make(in); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		started := time.Now()
		for range 2 {
			sha256.Sum256(in.Kernel)
			sha512.Sum384(in.Kernel)
		}
		sha512.Sum384(in.Kernel) // the TPM's other bank
		sha256.Sum256(in.Initrd)
		sha512.Sum384(in.Initrd)
		hashes += time.Since(started)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(hashes), "of-hashes")
}
