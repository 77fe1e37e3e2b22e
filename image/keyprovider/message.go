package keyprovider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// MaxMessage is the size limit of a question, in bytes.
const MaxMessage = 1 << 20

// An Operation is what is asked for.
type Operation string

// The two operations, in ocicrypt's words.
const (
	Wrap   Operation = "keywrap"
	Unwrap Operation = "keyunwrap"
)

// octets are bytes in the forms that peers write: base64, an array of numbers, or
// (of a document) the text itself. They are written as an array of numbers, which
// all peers read: those in Rust know nothing else.
type octets []byte

func (o *octets) UnmarshalJSON(raw []byte) error {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		var numbers []byte
		if err := json.Unmarshal(raw, &numbers); err != nil {
			return errors.New("neither text nor bytes")
		}
		*o = numbers
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		if !json.Valid([]byte(text)) {
			return errors.New("neither base64 nor JSON")
		}
		b = []byte(text)
	}
	*o = b
	return nil
}

func (o octets) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, c := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, ']'), nil
}

// question is what a peer asks.
type question struct {
	op         Operation
	parameters map[string][]octets // of a wrap, by recipient's protocol or provider
	options    octets              // of a wrap: the private options of a layer
	annotation octets              // of an unwrap: the packet
}

// parseQuestion reads a question. Members that it does not need are ignored.
func parseQuestion(raw []byte) (question, error) {
	var q question
	if len(raw) > MaxMessage {
		return q, fmt.Errorf("a question of %d bytes, at most %d are read", len(raw), MaxMessage)
	}
	if err := strictjson.Check(raw); err != nil {
		return q, err
	}
	var doc struct {
		Op   Operation `json:"op"`
		Wrap struct {
			Config struct {
				Parameters map[string][]octets `json:"Parameters"`
			} `json:"ec"`
			Options octets `json:"optsdata"`
		} `json:"keywrapparams"`
		Unwrap struct {
			Annotation octets `json:"annotation"`
		} `json:"keyunwrapparams"`
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&doc); err != nil {
		return q, errors.New("the question is not of ocicrypt's form") // the cause may quote a key
	}
	q = question{op: doc.Op, parameters: doc.Wrap.Config.Parameters, options: doc.Wrap.Options, annotation: doc.Unwrap.Annotation}
	switch {
	case q.op == Wrap && len(q.options) == 0:
		return q, errors.New("there is nothing to wrap")
	case q.op == Unwrap && len(q.annotation) == 0:
		return q, errors.New("there is nothing to unwrap")
	case q.op != Wrap && q.op != Unwrap:
		return q, fmt.Errorf("operation %.40q is not one", q.op)
	}
	return q, nil
}

func wrapAnswer(packet []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"keywrapresults": map[string]octets{"annotation": packet}})
}

func unwrapAnswer(options []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"keyunwrapresults": map[string]octets{"optsdata": options}})
}
