package rpc

import (
	"errors"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// request is the message ttrpc.Request. Its bytes are those that it was parsed
// from.
type request struct {
	service, method, payload []byte
	timeout                  time.Duration // 0 for none
}

// Fields of ttrpc.Request (request.proto) and of its KeyValue.
const (
	fieldService  = 1 // string
	fieldMethod   = 2 // string
	fieldPayload  = 3 // bytes
	fieldTimeout  = 4 // int64, nanoseconds
	fieldMetadata = 5 // repeated KeyValue

	fieldKey   = 1 // string
	fieldValue = 2 // string
)

var (
	errText   = errors.New("a text that is not UTF-8")
	errNumber = errors.New("a field that no message can have")
)

// parseRequest reads what the library for protobuf would, without the library's
// memory for it. Metadata is checked and passed over: nothing here asks for it
// (runtimes send the ids of their traces in it).
func parseRequest(b []byte) (request, error) {
	var r request
	err := fields(b, func(num protowire.Number, value []byte, number uint64) error {
		switch int32(num) {
		case fieldService:
			r.service = value
			return checkText(value)
		case fieldMethod:
			r.method = value
			return checkText(value)
		case fieldPayload:
			r.payload = value
		case fieldTimeout:
			r.timeout = time.Duration(number) //nolint:gosec // an int64 on the wire
		case fieldMetadata:
			return fields(value, func(num protowire.Number, value []byte, _ uint64) error {
				if num == fieldKey || num == fieldValue {
					return checkText(value)
				}
				return nil
			}, isText)
		}
		return nil
	}, func(num protowire.Number) protowire.Type {
		if num == fieldTimeout {
			return protowire.VarintType
		}
		return protowire.BytesType
	})
	return r, err
}

func isText(protowire.Number) protowire.Type { return protowire.BytesType }

func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errText
	}
	return nil
}

// fields calls f for each field of a message that has the type which is expected
// of its number; others are passed over, as by every reader of protobuf.
func fields(b []byte, f func(num protowire.Number, value []byte, number uint64) error, expected func(protowire.Number) protowire.Type) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if !num.IsValid() {
			return errNumber
		}
		b = b[n:]
		var value []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != expected(num) {
			continue
		}
		if err := f(num, value, number); err != nil {
			return err
		}
	}
	return nil
}
