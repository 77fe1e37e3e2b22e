package policy

import (
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
)

// maxBytes bounds a field of raw bytes that a policy reads: each byte becomes a
// number of its own.
const maxBytes = 64 << 10

var errBytes = errors.New("more bytes than a policy can read")

// Document returns the input document of a request: the JSON that the field's
// agent makes of the message (kata-agent 3.5). Members have the names of the
// protocol's fields, with "type" written type_; every field is there, and what
// is not set is null. Enumerations and integers of any size are numbers, bytes
// are arrays of numbers. For CopyFile it is the derived document, which has no
// data.
func Document(m proto.Message) (ast.Value, error) { return document(m, true) }

// document leaves bytes out where nobody reads them.
func document(m proto.Message, bytes bool) (ast.Value, error) {
	if c, ok := m.(*agent.CopyFileRequest); ok {
		return copyDocument(c), nil
	}
	return message(m.ProtoReflect(), bytes)
}

func message(m protoreflect.Message, bytes bool) (ast.Value, error) {
	fields := m.Descriptor().Fields()
	pairs := make([][2]*ast.Term, 0, fields.Len())
	for i := range fields.Len() {
		f := fields.Get(i)
		v, err := field(m, f, bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		name := string(f.Name())
		if name == "type" {
			name = "type_" // a keyword of Rust
		}
		pairs = append(pairs, ast.Item(ast.InternedTerm(name), ast.NewTerm(v)))
	}
	return ast.NewObject(pairs...), nil
}

func field(m protoreflect.Message, f protoreflect.FieldDescriptor, bytes bool) (ast.Value, error) {
	switch v := m.Get(f); {
	case f.IsMap():
		return table(v.Map(), f.MapValue(), bytes)
	case f.IsList():
		terms := make([]*ast.Term, v.List().Len())
		for i := range terms {
			value, err := single(v.List().Get(i), f, bytes)
			if err != nil {
				return nil, err
			}
			terms[i] = ast.NewTerm(value)
		}
		return ast.NewArray(terms...), nil
	case f.HasPresence() && !m.Has(f):
		return ast.NullValue, nil
	default:
		return single(v, f, bytes)
	}
}

func table(m protoreflect.Map, value protoreflect.FieldDescriptor, bytes bool) (ast.Value, error) {
	pairs := make([][2]*ast.Term, 0, m.Len())
	var failed error
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		var item ast.Value
		if item, failed = single(v, value, bytes); failed != nil {
			return false
		}
		pairs = append(pairs, ast.Item(ast.StringTerm(k.String()), ast.NewTerm(item)))
		return true
	})
	return ast.NewObject(pairs...), failed
}

func single(v protoreflect.Value, f protoreflect.FieldDescriptor, bytes bool) (ast.Value, error) {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return message(v.Message(), bytes)
	case protoreflect.StringKind:
		return ast.String(v.String()), nil
	case protoreflect.BoolKind:
		return ast.InternedTerm(v.Bool()).Value, nil
	case protoreflect.EnumKind:
		return ast.InternedTerm(int(v.Enum())).Value, nil
	case protoreflect.BytesKind:
		return numbers(v.Bytes(), bytes)
	default: // integers; the protocol has no floating point, which would print as well
		return ast.Number(v.String()), nil
	}
}

func numbers(raw []byte, wanted bool) (ast.Value, error) {
	if !wanted {
		return ast.NewArray(), nil
	}
	if len(raw) > maxBytes {
		return nil, errBytes
	}
	terms := make([]*ast.Term, len(raw))
	for i, b := range raw {
		terms[i] = ast.InternedTerm(int(b))
	}
	return ast.NewArray(terms...), nil
}

// copyDocument is what the field's agent shows of a copied file.
func copyDocument(c *agent.CopyFileRequest) ast.Value {
	kind, target := "Unknown", ""
	switch c.GetFileMode() & unix.S_IFMT {
	case unix.S_IFREG:
		kind = "Regular"
	case unix.S_IFDIR:
		kind = "Directory"
	case unix.S_IFLNK:
		kind, target = "Symlink", string(c.GetData())
	}
	number := func(n int64) *ast.Term { return ast.NewTerm(ast.Number(fmt.Sprint(n))) }
	text := ast.StringTerm
	return ast.NewObject(
		ast.Item(text("path"), text(c.GetPath())),
		ast.Item(text("file_type"), text(kind)),
		ast.Item(text("symlink_target"), text(target)),
		ast.Item(text("file_size"), number(c.GetFileSize())),
		ast.Item(text("file_mode"), number(int64(c.GetFileMode()))),
		ast.Item(text("dir_mode"), number(int64(c.GetDirMode()))),
		ast.Item(text("uid"), number(int64(c.GetUid()))),
		ast.Item(text("gid"), number(int64(c.GetGid()))),
		ast.Item(text("offset"), number(c.GetOffset())),
	)
}

// logged is a document for a log line.
func logged(m proto.Message) any {
	d, err := document(m, false)
	if err != nil {
		return nil
	}
	v, err := ast.JSON(d)
	if err != nil {
		return nil
	}
	return v
}
