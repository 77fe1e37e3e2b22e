package dcap

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes of what a quote is made of (Intel TDX DCAP Quoting Library
// API, appendix A.3 and A.4; SGX ECDSA Quote Library, appendix A.4).
const (
	// MaxQuoteSize bounds a quote. Real ones have about 5 kB.
	MaxQuoteSize = 64 << 10

	headerSize    = 48
	tdReport10    = 584
	tdReport15    = 648
	minVersion    = 3
	maxVersion    = 5
	keyTypeP256   = 2 // ECDSA-256-with-P-256
	teeTypeSGX    = 0
	teeTypeTDX    = 0x81
	certPEMChain  = 5 // certification data: the PCK certificate chain
	certQEReport  = 6 // certification data: a QE report with its own certification data
	maxQuoteChain = 32 << 10
)

// BodyType says what a quote's body is. Version 5 writes it down, in earlier
// versions it follows from the header.
type BodyType uint16

// The bodies that are known.
const (
	BodySGX  BodyType = 1 // an [EnclaveReport]
	BodyTD10 BodyType = 2 // a TD report of TDX 1.0
	BodyTD15 BodyType = 3 // a TD report of TDX 1.5
)

func (t BodyType) size() (int, error) {
	switch t {
	case BodySGX:
		return EnclaveReportSize, nil
	case BodyTD10:
		return tdReport10, nil
	case BodyTD15:
		return tdReport15, nil
	}
	return 0, fmt.Errorf("a body of type %d is not known", t)
}

// Header is the start of every quote.
type Header struct {
	Version  uint16
	KeyType  uint16 // 2, ECDSA on P-256: no other is accepted
	TEEType  uint32 // 0 for SGX, 0x81 for TDX
	Reserved [4]byte
	VendorID [16]byte // of the quoting enclave
	UserData [20]byte
}

// QESVN and PCESVN of version 3 lie where later versions are reserved.
func (h Header) QESVN() [2]byte { return [2]byte(h.Reserved[:2]) }

// PCESVN is described at [Header.QESVN].
func (h Header) PCESVN() [2]byte { return [2]byte(h.Reserved[2:]) }

// Quote is a quote of version 3 (SGX), 4 or 5 (TDX), with the signature of the
// attestation key, the quoting enclave's report that vouches for that key, and
// the PCK certificate chain that vouches for the report. [ParseQuote] makes
// it; the byte slices belong to what was parsed.
type Quote struct {
	Header   Header
	BodyType BodyType
	Body     []byte

	Signature [64]byte // r and s, big-endian, over header and body
	Key       [64]byte // the attestation key: x and y, big-endian

	QEReport    *EnclaveReport
	QESignature [64]byte // of the PCK over the QE report
	AuthData    []byte   // the quoting enclave binds key and this in its report data
	Chain       []byte   // PEM: PCK certificate, its CA, root

	// Padding is the number of zero bytes after the quote. Drivers hand out
	// whole buffers.
	Padding int

	signed     []byte // header and body, as signed
	signedByQE []byte // the QE report, as signed
	certified  []byte // all that ties the attestation key to the root, as it came
}

// ParseQuote reads a quote. It checks the form alone: every length is exact,
// and what follows the quote is zero.
func ParseQuote(raw []byte) (*Quote, error) {
	if len(raw) > MaxQuoteSize {
		return nil, fmt.Errorf("a quote has at most %d bytes, got %d", MaxQuoteSize, len(raw))
	}
	q, err := parseQuote(&reader{rest: raw}, raw)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return q, nil
}

func parseQuote(r *reader, raw []byte) (*Quote, error) {
	q := new(Quote)
	if err := q.parseHeader(r); err != nil {
		return nil, err
	}
	size, err := q.BodyType.size()
	if err != nil {
		return nil, err
	}
	q.Body = r.take("body", size)
	q.signed = raw[:len(raw)-len(r.rest)]
	section := reader{rest: r.sized("signature data", r.uint32("signature data"))}
	if r.err != nil {
		return nil, r.err
	}
	for _, b := range r.rest {
		if b != 0 {
			return nil, errors.New("there are other bytes than zero after the quote")
		}
	}
	q.Padding = len(r.rest)
	return q, q.parseSignature(&section)
}

func (q *Quote) parseHeader(r *reader) error {
	h := r.take("header", headerSize)
	if r.err != nil {
		return r.err
	}
	if _, err := binary.Decode(h, binary.LittleEndian, &q.Header); err != nil {
		return err
	}
	switch {
	case q.Header.Version < minVersion || q.Header.Version > maxVersion:
		return fmt.Errorf("version %d is not known, only %d to %d", q.Header.Version, minVersion, maxVersion)
	case q.Header.KeyType != keyTypeP256:
		return fmt.Errorf("an attestation key of type %d, want %d (ECDSA P-256)", q.Header.KeyType, keyTypeP256)
	}
	wanted := uint32(teeTypeTDX)
	if q.Header.Version == 3 {
		wanted = teeTypeSGX
	}
	if q.Header.TEEType != wanted {
		return fmt.Errorf("TEE type %#x in version %d, want %#x", q.Header.TEEType, q.Header.Version, wanted)
	}
	switch q.Header.Version {
	case 3:
		q.BodyType = BodySGX
	case 4:
		q.BodyType = BodyTD10
	default:
		return q.parseBodyType(r)
	}
	return nil
}

// parseBodyType reads what version 5 says about its body.
func (q *Quote) parseBodyType(r *reader) error {
	q.BodyType = BodyType(r.uint16("body type"))
	size := r.uint32("body size")
	if r.err != nil {
		return r.err
	}
	want, err := q.BodyType.size()
	if err != nil {
		return err
	}
	if q.BodyType == BodySGX {
		return errors.New("an enclave report in a quote of a TD")
	}
	if int64(size) != int64(want) {
		return fmt.Errorf("a body of type %d has %d bytes, the quote says %d", q.BodyType, want, size)
	}
	return nil
}

// parseSignature reads the signature data. From version 4 on, everything
// behind the attestation key is wrapped once more.
func (q *Quote) parseSignature(r *reader) error {
	r.fill("signature", q.Signature[:])
	r.fill("attestation key", q.Key[:])
	if q.Header.Version > 3 {
		if kind := r.uint16("certification data"); r.err == nil && kind != certQEReport {
			return fmt.Errorf("certification data of type %d, want %d (QE report)", kind, certQEReport)
		}
		inner := r.sized("certification data", r.uint32("certification data"))
		r.end("signature data")
		if r.err != nil {
			return r.err
		}
		*r = reader{rest: inner}
	}
	q.certified = r.rest
	q.signedByQE = r.take("QE report", EnclaveReportSize)
	r.fill("QE report signature", q.QESignature[:])
	q.AuthData = r.sized("QE authentication data", uint32(r.uint16("QE authentication data")))
	kind := r.uint16("PCK certification data")
	if r.err == nil && kind != certPEMChain {
		return fmt.Errorf("PCK certification data of type %d, want %d (certificate chain)", kind, certPEMChain)
	}
	size := r.uint32("PCK certificate chain")
	if size > maxQuoteChain {
		return fmt.Errorf("the PCK certificate chain has %d bytes, at most %d are allowed", size, maxQuoteChain)
	}
	q.Chain = r.sized("PCK certificate chain", size)
	r.end("certification data")
	if r.err != nil {
		return r.err
	}
	var err error
	q.QEReport, err = ParseEnclaveReport(q.signedByQE)
	return err
}

// Marshal returns the bytes of the quote.
func (q *Quote) Marshal() []byte {
	out := q.marshalSigned()
	le := binary.LittleEndian
	inner := append(q.QEReport.Marshal(), q.QESignature[:]...)
	inner = le.AppendUint16(inner, uint16(len(q.AuthData)))
	inner = append(inner, q.AuthData...)
	inner = le.AppendUint16(inner, certPEMChain)
	inner = le.AppendUint32(inner, uint32(len(q.Chain)))
	inner = append(inner, q.Chain...)
	section := append(q.Signature[:len(q.Signature):len(q.Signature)], q.Key[:]...)
	if q.Header.Version > 3 {
		section = le.AppendUint16(section, certQEReport)
		section = le.AppendUint32(section, uint32(len(inner)))
	}
	section = append(section, inner...)
	out = le.AppendUint32(out, uint32(len(section)))
	out = append(out, section...)
	return append(out, make([]byte, q.Padding)...)
}

// marshalSigned returns what the attestation key signs.
func (q *Quote) marshalSigned() []byte {
	out, err := binary.Append(nil, binary.LittleEndian, q.Header)
	if err != nil {
		panic(err) // the struct has only fixed-size fields
	}
	if q.Header.Version >= 5 {
		out = binary.LittleEndian.AppendUint16(out, uint16(q.BodyType))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(q.Body)))
	}
	return append(out, q.Body...)
}

// keyBinding is what a quoting enclave puts into its report data: the digest
// of the attestation key and the authentication data, filled up with zeros.
func (q *Quote) keyBinding() (data [64]byte) {
	h := sha256.New()
	h.Write(q.Key[:])
	h.Write(q.AuthData)
	h.Sum(data[:0])
	return data
}
