package kek

import "fmt"

// What a Set wraps says which key it is under:
//
//	length of the id   1 byte, 1 to 64
//	id                 Wrapper.ID
//	wrapped            as the key's holder made it, at least 1 byte
//
// The id is not authenticated, and need not be: under another key the rest
// does not open.

const maxID = 64 // bytes

func validID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

func envelop(id string, wrapped []byte) ([]byte, error) {
	if !validID(id) || len(wrapped) == 0 || len(wrapped) > MaxWrapped {
		return nil, fmt.Errorf("kek: %q gave %d wrapped bytes, which cannot be stored", id, len(wrapped))
	}
	out := append(make([]byte, 0, 1+len(id)+len(wrapped)), byte(len(id)))
	return append(append(out, id...), wrapped...), nil
}

// ParseEnvelope splits what a Set wrapped into the id of the key it is under
// and the rest. It accepts exactly what a Set makes; an error wraps ErrUnwrap.
func ParseEnvelope(envelope []byte) (id string, wrapped []byte, err error) {
	if len(envelope) < 1 || len(envelope) < 2+int(envelope[0]) {
		return "", nil, fmt.Errorf("%w: it is too short", ErrUnwrap)
	}
	end := 1 + int(envelope[0]) // as int: 1+255 is 0 in a byte
	id, wrapped = string(envelope[1:end]), envelope[end:]
	if !validID(id) || len(wrapped) > MaxWrapped {
		return "", nil, fmt.Errorf("%w: it is not in a known format", ErrUnwrap)
	}
	return id, wrapped, nil
}
