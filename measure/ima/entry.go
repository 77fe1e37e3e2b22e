package ima

import (
	"bytes"
	"encoding/hex"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/fields"
)

// What an entry describes is told by its data alone. The name of its template,
// which would say so, is not in what extends the register: whoever sends a list may
// write another one, and so pass a file off as something that no policy looks at.

// File returns the first two fields of the templates that describe files: the
// digest of the content as ALGORITHM:HEX, and the path; false for a [Entry.Buffer].
// Names are as the kernel saw them, in whatever mount namespace.
func (e Entry) File() (digest, path string, ok bool) {
	d := e.describe()
	return d.digest(), d.text(), d.ok && !d.buffer()
}

// Buffer returns what an entry says of something that is no file (template ima-buf):
// a key, by the name of its keyring, the command line of the next kernel
// (kexec-cmdline), and what the policy critical_data calls so, as kernel_version and
// the tables of the device mapper. The digest is that of the measured bytes, as
// ALGORITHM:HEX.
func (e Entry) Buffer() (digest, name string, ok bool) {
	d := e.describe()
	return d.digest(), d.text(), d.ok && d.buffer()
}

// description is an entry's data, as far as templates have it in common.
type description struct {
	ok        bool
	algorithm string // as the kernel's crypto has it: sha256
	sum, name []byte
	// third is the third field, where it is the last one; empty where there is none.
	third []byte
}

func (e Entry) describe() description {
	r := &fields.Reader{Buf: e.Data, Truncated: ErrTruncated}
	first, second := r.Take(take(r.U32())), r.Take(take(r.U32()))
	algorithm, sum, found := bytes.Cut(first, []byte(":\x00"))
	name, terminated := bytes.CutSuffix(second, []byte("\x00"))
	if r.Err != nil || !found || !terminated || bytes.IndexByte(name, 0) >= 0 {
		return description{}
	}
	d := description{ok: true, algorithm: string(algorithm), sum: sum, name: name}
	if third := r.Take(take(r.U32())); r.Err == nil && r.At == len(r.Buf) {
		d.third = third
	}
	return d
}

func (d description) digest() string { return d.algorithm + ":" + hex.EncodeToString(d.sum) }

func (d description) text() string { return strings.ToValidUTF8(string(d.name), "\ufffd") }

// sums are the algorithms by which a buffer is known. Of another one (ima_hash=) all
// entries count as files, as if nobody could tell.
var sums = map[string]eventlog.Algorithm{
	"sha1": eventlog.SHA1, "sha256": eventlog.SHA256, "sha384": eventlog.SHA384, "sha512": eventlog.SHA512,
}

// Types of what the third field of a file may hold, its first byte: signatures from
// the attributes security.ima and security.evm (enum evm_ima_xattr_type).
const (
	signature         = 3
	portableSignature = 5
	veritySignature   = 6
)

// buffer says that the third field holds what was measured. That of a file is its
// signature, or empty: no content has itself for a signature, unless somebody made
// it so, and then it has a signature's first byte, for the kernel shows no others.
// The few buffers that begin so count as files: nothing that may be one is left out.
// A template of one's own (ima_template_fmt=) can have an attribute there that root
// chooses, which PCR 9 shows with the command line.
func (d description) buffer() bool {
	if len(d.third) == 0 {
		return false
	}
	switch d.third[0] {
	case signature, portableSignature, veritySignature:
		return false
	}
	alg, known := sums[d.algorithm]
	return known && bytes.Equal(alg.Sum(d.third), d.sum)
}
