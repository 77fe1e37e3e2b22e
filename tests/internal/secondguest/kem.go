package secondguest

import (
	"bytes"
	"crypto/aes"
	"crypto/sha3"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// decapsulate opens an answer under ML-KEM-768+A192KW (section 4).
func (k *Key) decapsulate(f flattened, header []byte) ([]byte, error) {
	var h struct {
		Alg string `json:"alg"`
		EK  string `json:"ek"`
	}
	if err := json.Unmarshal(header, &h); err != nil {
		return nil, err
	}
	encapsulated, err := base64.RawURLEncoding.DecodeString(h.EK)
	if err != nil {
		return nil, err
	}
	shared, err := k.kem.Decapsulate(encapsulated)
	if err != nil {
		return nil, err
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(h.Alg)))
	data = append(data, h.Alg...)
	data = binary.BigEndian.AppendUint32(data, 192)
	p, err := f.decode()
	if err != nil {
		return nil, err
	}
	content, err := unwrap(kmac256(shared, data, 24), p.key)
	if err != nil {
		return nil, err
	}
	return unseal(content, p.iv, append(p.text, p.tag...), []byte(f.Protected))
}

// kmac256 is KMAC256 of NIST SP 800-185 section 4 with an empty customization.
func kmac256(key, data []byte, size int) []byte {
	const rate = 136
	left := func(n int) []byte { // left_encode of small numbers
		b := binary.BigEndian.AppendUint64(nil, uint64(n))
		b = bytes.TrimLeft(b, "\x00")
		if len(b) == 0 {
			b = []byte{0}
		}
		return append([]byte{byte(len(b))}, b...)
	}
	right := func(n int) []byte {
		l := left(n)
		return append(l[1:], l[0])
	}
	padded := append(left(rate), append(left(8*len(key)), key...)...)
	padded = append(padded, make([]byte, (rate-len(padded)%rate)%rate)...)
	h := sha3.NewCSHAKE256([]byte("KMAC"), nil)
	for _, part := range [][]byte{padded, data, right(8 * size)} {
		_, _ = h.Write(part) // a hash takes everything
	}
	out := make([]byte, size)
	_, _ = h.Read(out)
	return out
}

// unwrap is the key unwrapping of RFC 3394, section 2.2.2.
func unwrap(kek, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, fmt.Errorf("a wrapped key of %d bytes", len(wrapped))
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	n := len(wrapped)/8 - 1
	a, r := bytes.Clone(wrapped[:8]), bytes.Clone(wrapped[8:])
	buf := make([]byte, 16)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(a)^uint64(n*j+i))
			copy(buf, a)
			copy(buf[8:], r[8*(i-1):8*i])
			block.Decrypt(buf, buf)
			copy(a, buf[:8])
			copy(r[8*(i-1):8*i], buf[8:])
		}
	}
	if !bytes.Equal(a, bytes.Repeat([]byte{0xa6}, 8)) {
		return nil, errors.New("the wrapped key does not open")
	}
	return r, nil
}
