package openapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// Schema is the part of JSON Schema 2020-12 that Go types need.
type Schema struct {
	Ref             string             `json:"$ref,omitempty"`
	Type            any                `json:"type,omitempty"` // a name, or a list of them
	Format          string             `json:"format,omitempty"`
	ContentEncoding string             `json:"contentEncoding,omitempty"`
	Description     string             `json:"description,omitempty"`
	Enum            []string           `json:"enum,omitempty"`
	Properties      map[string]*Schema `json:"properties,omitempty"`
	Required        []string           `json:"required,omitempty"`
	Items           *Schema            `json:"items,omitempty"`
	Additional      *Schema            `json:"additionalProperties,omitempty"`
	AllOf           []*Schema          `json:"allOf,omitempty"`
	AnyOf           []*Schema          `json:"anyOf,omitempty"`
}

const refPrefix = "#/components/schemas/"

// inputSuffix marks the schema of a type that is read.
const inputSuffix = "Input"

// Schemas collects the named types that were met. Two types must not share a
// name.
type Schemas struct {
	All   map[string]*Schema
	types map[string]reflect.Type

	input    bool
	required []string
}

// NewSchemas returns an empty collection.
func NewSchemas() *Schemas {
	return &Schemas{All: map[string]*Schema{}, types: map[string]reflect.Type{}}
}

// Input returns a view of the collection for what is read instead of written:
// encoding/json writes every member that may not be omitted, but reads any
// that is there. The named members of the outermost object are required.
func (s *Schemas) Input(required []string) *Schemas {
	return &Schemas{All: s.All, types: s.types, input: true, required: required}
}

var (
	rawType  = reflect.TypeFor[json.RawMessage]()
	timeType = reflect.TypeFor[time.Time]()
)

// Of returns the schema of a value's type as encoding/json writes it. It
// panics for a type that has no JSON form: the callers' types are constants of
// the program, and a test goes through all of them.
func (s *Schemas) Of(v any) *Schema {
	out := s.of(reflect.TypeOf(v))
	if len(s.required) > 0 {
		out = &Schema{AllOf: []*Schema{out, {Required: s.required}}}
	}
	return out
}

func (s *Schemas) of(t reflect.Type) *Schema {
	switch t {
	case rawType:
		return &Schema{}
	case timeType:
		return &Schema{Type: "string", Format: "date-time"}
	}
	switch t.Kind() { //nolint:exhaustive // the others have no JSON form
	case reflect.Interface:
		return &Schema{}
	case reflect.Pointer:
		return &Schema{AnyOf: []*Schema{s.of(t.Elem()), {Type: "null"}}}
	case reflect.String:
		return &Schema{Type: "string"}
	case reflect.Bool:
		return &Schema{Type: "boolean"}
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &Schema{Type: "integer"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &Schema{Type: "string", ContentEncoding: "base64"}
		}
		return &Schema{Type: "array", Items: s.of(t.Elem())}
	case reflect.Map:
		return &Schema{Type: "object", Additional: s.of(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	}
	panic(fmt.Sprintf("openapi: %s has no JSON form", t))
}

func (s *Schemas) named(t reflect.Type) *Schema {
	name := Name(t)
	if s.input {
		name += inputSuffix
	}
	if known, ok := s.types[name]; ok && known != t {
		panic(fmt.Sprintf("openapi: %s and %s share the name %s", known, t, name))
	}
	if _, ok := s.types[name]; !ok {
		s.types[name] = t
		out := &Schema{Type: "object", Properties: map[string]*Schema{}}
		s.All[name] = out
		s.members(out, t)
	}
	return &Schema{Ref: refPrefix + name}
}

// members adds the fields of a struct, those of embedded structs included.
func (s *Schemas) members(out *Schema, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			s.members(out, embedded)
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out.Properties[name] = s.of(f.Type)
		if !s.input && !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			out.Required = append(out.Required, name)
		}
	}
}

// Name of a type in the document: its Go name with a capital, and for a
// generic one the argument's name before it: items[api.Policy] is PolicyItems.
func Name(t reflect.Type) string {
	name, argument, generic := strings.Cut(t.Name(), "[")
	name = string(unicode.ToUpper(rune(name[0]))) + name[1:]
	if !generic {
		return name
	}
	argument = strings.TrimSuffix(argument, "]")
	return argument[strings.LastIndexByte(argument, '.')+1:] + name
}
