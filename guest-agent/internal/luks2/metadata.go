package luks2

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// metadata is the JSON text (specification, section 3). What is not in these
// types is refused: a member that we do not know may change what the volume is.
type metadata struct {
	Keyslots map[string]keyslotJSON     `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
	Segments map[string]segmentJSON     `json:"segments"`
	Digests  map[string]digestJSON      `json:"digests"`
	Config   configJSON                 `json:"config"`
}

type keyslotJSON struct {
	Type    string   `json:"type"`
	KeySize int      `json:"key_size"`
	AF      afJSON   `json:"af"`
	Area    areaJSON `json:"area"`
	KDF     kdfJSON  `json:"kdf"`
}

type afJSON struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

type areaJSON struct {
	Type       string `json:"type"`
	Offset     number `json:"offset"`
	Size       number `json:"size"`
	Encryption string `json:"encryption"`
	KeySize    int    `json:"key_size"`
}

type kdfJSON struct {
	Type       string `json:"type"`
	Hash       string `json:"hash"`
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`

	// Those of Argon2, which is refused by its name.
	Time   int `json:"time,omitempty"`
	Memory int `json:"memory,omitempty"`
	CPUs   int `json:"cpus,omitempty"`
}

type segmentJSON struct {
	Type       string         `json:"type"`
	Offset     number         `json:"offset"`
	Size       string         `json:"size"`
	IVTweak    string         `json:"iv_tweak"`
	Encryption string         `json:"encryption"`
	SectorSize int            `json:"sector_size"`
	Integrity  *integrityJSON `json:"integrity,omitempty"`
}

type integrityJSON struct {
	Type              string `json:"type"`
	JournalEncryption string `json:"journal_encryption"`
	JournalIntegrity  string `json:"journal_integrity"`
}

type digestJSON struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

type configJSON struct {
	JSONSize     number `json:"json_size"`
	KeyslotsSize number `json:"keyslots_size"`
}

// number is a whole number that is written as a string, because some readers of
// JSON cannot hold 64 bits.
type number int64

func (n *number) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < 0 || strconv.FormatInt(v, 10) != text {
		return strconv.ErrSyntax
	}
	*n = number(v)
	return nil
}

func (n number) MarshalJSON() ([]byte, error) { return json.Marshal(strconv.FormatInt(int64(n), 10)) }

// maxOffset keeps what is added to offsets from overflowing: 8 EiB of device
// are more than there is.
const maxOffset = 1 << 60

// parseMetadata accepts one form of header, see the package comment.
func parseMetadata(text []byte, headerSize int64) (*Header, error) {
	if err := strictjson.Check(text); err != nil {
		return nil, refusef("%w", err)
	}
	var m metadata
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, refusef("its JSON text: %w", err)
	}
	switch {
	case len(m.Keyslots) != 1:
		return nil, refusef("%d key slots, where one is accepted", len(m.Keyslots))
	case len(m.Segments) != 1:
		return nil, refusef("%d segments, where one is accepted", len(m.Segments))
	case len(m.Digests) != 1:
		return nil, refusef("%d digests, where one is accepted", len(m.Digests))
	case len(m.Tokens) != 0:
		return nil, refusef("it has tokens")
	case int64(m.Config.JSONSize) != headerSize-binarySize:
		return nil, refusef("its JSON area is not as long as it says")
	}
	h := &Header{}
	slotsEnd := 2*headerSize + int64(min(m.Config.KeyslotsSize, maxOffset))
	for name, s := range m.Keyslots {
		if err := h.acceptSlot(s, 2*headerSize, slotsEnd); err != nil {
			return nil, refusef("key slot %q: %w", name, err)
		}
	}
	for name, s := range m.Segments {
		if err := h.acceptSegment(s, slotsEnd); err != nil {
			return nil, refusef("segment %q: %w", name, err)
		}
	}
	for name, d := range m.Digests {
		if err := h.acceptDigest(d, m); err != nil {
			return nil, refusef("digest %q: %w", name, err)
		}
	}
	return h, nil
}
