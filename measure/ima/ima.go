// Package ima reads the list of Linux's integrity measurement architecture: which
// files a kernel measured when they were opened or executed, and what else (its own
// version, keys on keyrings, the command line of the next kernel), as its policy
// (ima_policy=) told it to, and what it extended PCR 10 by for each.
//
// A list proves nothing by itself: [List.Through] says which part of it leads to a
// register that a TPM vouches for. The list grows all the time, so what was read
// after a quote holds more than the quote does; what is beyond is nobody's word.
//
// Sources: Linux, security/integrity/ima/ima_fs.c (ima_measurements_show),
// ima_template.c, ima_template_lib.c, ima_main.c and ima_queue.c.
package ima

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/measure"
	"github.com/vouchsafe-cc/vouchsafe/measure/eventlog"
	"github.com/vouchsafe-cc/vouchsafe/measure/internal/fields"
)

// File is where Linux shows its list, in securityfs.
const File = "sys/kernel/security/ima/binary_runtime_measurements"

// PCR is the register of the list (CONFIG_IMA_MEASURE_PCR_IDX).
const PCR = 10

// Limits on lists. An entry has about 100 bytes.
const (
	MaxSize = 128 << 10 // bytes of a list that travels: its files must fit into a token
	maxName = 255       // of a template (TCG_EVENT_NAME_LEN_MAX)
)

// ErrTruncated is returned for a list that ends in the middle of an entry.
var ErrTruncated = errors.New("the IMA list ends in the middle of an entry")

// Entry is one measurement.
type Entry struct {
	PCR int
	// Digest is the SHA-1 of the data, which extended the bank of that algorithm.
	// It is zero for a violation.
	Digest [20]byte
	// Template names the fields of the data. No register vouches for it.
	Template string
	Data     []byte // fields, each behind its length
}

// List is a parsed list, in the order of the kernel.
type List []Entry

// Parse reads a list in the form of [File], of a little-endian machine. It judges
// nothing but the form. The template of IMA's first version (ima), which hashes
// other bytes than it shows, is refused.
func Parse(raw []byte) (List, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("the IMA list has %d bytes, at most %d are allowed", len(raw), MaxSize)
	}
	r := &fields.Reader{Buf: bytes.Clone(raw), Truncated: ErrTruncated}
	var out List
	for r.At < len(r.Buf) {
		e := Entry{PCR: int(r.U32())}
		copy(e.Digest[:], r.Take(len(e.Digest)))
		name := r.U32()
		if name > maxName {
			return nil, fmt.Errorf("entry %d of the IMA list has a template of %d bytes", len(out), name)
		}
		e.Template = string(r.Take(int(name)))
		if e.Template == "ima" {
			return nil, errors.New("the IMA list is of the template ima, which cannot be replayed in a bank but that of SHA-1")
		}
		e.Data = r.Take(take(r.U32()))
		if r.Err != nil {
			return nil, r.Err
		}
		out = append(out, e)
	}
	return out, nil
}

// take is a length that no list has where it is larger than one.
func take(n uint32) int { return int(min(n, MaxSize+1)) }

// Marshal is what Parse reads.
func (l List) Marshal() []byte {
	var out []byte
	for _, e := range l {
		out = le(out, e.PCR)
		out = append(out, e.Digest[:]...)
		out = append(le(out, len(e.Template)), e.Template...)
		out = append(le(out, len(e.Data)), e.Data...)
	}
	return out
}

func le(out []byte, n int) []byte {
	return append(out, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
}

// Violation says that a file changed while it was measured, or was open for
// writing: its content is not known, and the register was extended by ones.
func (e Entry) Violation() bool { return e.Digest == [20]byte{} }

// Sum is what the entry extended the bank of an algorithm by.
func (e Entry) Sum(alg eventlog.Algorithm) []byte {
	if e.Violation() {
		return bytes.Repeat([]byte{0xff}, alg.Size())
	}
	return alg.Sum(e.Data)
}

// Through returns the entries, from the first on, that lead the register of a bank
// from its reset to a value; false if none do. Entries of other registers are left
// out.
func (l List) Through(alg eventlog.Algorithm, value []byte) (List, bool) {
	register := eventlog.Initial(PCR, alg)
	var out List
	for _, e := range l {
		if bytes.Equal(register, value) {
			return out, true
		}
		if e.PCR == PCR {
			register = eventlog.Extend(alg, register, e.Sum(alg))
			out = append(out, e)
		}
	}
	return out, bytes.Equal(register, value)
}

// End is the value of the register after the whole list.
func (l List) End(alg eventlog.Algorithm) []byte {
	register := eventlog.Initial(PCR, alg)
	for _, e := range l {
		if e.PCR == PCR {
			register = eventlog.Extend(alg, register, e.Sum(alg))
		}
	}
	return register
}

// Claims are what policies see of a list that leads to its register: how many
// entries and violations there are, the files with their digests, and what else was
// measured under its name, each as often as it was. A violation is neither: the
// register was extended by ones whatever the list tells beside it, so path and digest
// are the sender's word.
func (l List) Claims() measure.Claims {
	violations := 0
	files, buffers := []any{}, []any{}
	for _, e := range l {
		if e.Violation() {
			violations++
			continue
		}
		if digest, name, ok := e.Buffer(); ok {
			buffers = append(buffers, measure.Claims{"digest": digest, "name": name})
			continue
		}
		if digest, path, ok := e.File(); ok {
			files = append(files, measure.Claims{"digest": digest, "path": path})
		}
	}
	return measure.Claims{
		"entries": json.Number(strconv.Itoa(len(l))), "violations": json.Number(strconv.Itoa(violations)), "files": files, "buffers": buffers,
	}
}
