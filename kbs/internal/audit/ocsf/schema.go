package ocsf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

// schema is the part of JSON Schema 2020-12 that the events need.
type schema struct {
	Dialect     string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type,omitempty"`
	Const       any                `json:"const,omitempty"`
	Enum        []any              `json:"enum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"` // a schema, or false
	If          *schema            `json:"if,omitempty"`
	Then        *schema            `json:"then,omitempty"`
	AllOf       []*schema          `json:"allOf,omitempty"`
}

// Schema returns the JSON Schema of the events that the broker writes.
func Schema() []byte {
	root := schemaOf(reflect.TypeFor[Event]())
	root.Dialect = "https://json-schema.org/draft/2020-12/schema"
	root.ID = "https://github.com/vouchsafe-cc/vouchsafe/docs/reference/audit-event.schema.json"
	root.Title = "Audit event of the Vouchsafe key broker, in the form of OCSF " + Version
	root.Properties["class_uid"].Enum = nil
	for _, c := range classes() {
		root.Properties["class_uid"].Enum = append(root.Properties["class_uid"].Enum, c.uid)
		root.AllOf = append(root.AllOf, &schema{
			If:   &schema{Properties: map[string]*schema{"class_uid": {Const: c.uid}}},
			Then: c.schema(),
		})
	}
	metadata := root.Properties["metadata"]
	metadata.Properties["version"].Const = Version
	for _, k := range api.AuditKinds() {
		metadata.Properties["event_code"].Enum = append(metadata.Properties["event_code"].Enum, string(k.Kind))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic(fmt.Sprintf("ocsf: the schema has no JSON form: %v", err)) // it is a constant of the program
	}
	return b.Bytes()
}

// schema is what an event of the class must have beyond what every event has.
func (c class) schema() *schema {
	var activities, types []any
	for _, id := range slices.Sorted(maps.Keys(c.activities)) {
		activities, types = append(activities, id), append(types, c.uid*100+id)
	}
	return &schema{
		Title: c.name,
		Properties: map[string]*schema{
			"class_name": {Const: c.name}, "category_uid": {Const: c.category}, "category_name": {Const: c.categoryName},
			"activity_id": {Enum: activities}, "type_uid": {Enum: types},
		},
		Required: c.required,
	}
}

// schemaOf describes a type as encoding/json writes it.
func schemaOf(t reflect.Type) *schema {
	switch t.Kind() { //nolint:exhaustive // the events have no others
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer"}
	case reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", Additional: schemaOf(t.Elem())}
	case reflect.Struct:
		out := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
		for i := range t.NumField() {
			f := t.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			member := schemaOf(f.Type)
			member.Description = f.Tag.Get("doc")
			out.Properties[name] = member
			if options != "omitempty" {
				out.Required = append(out.Required, name)
			}
		}
		return out
	}
	panic(fmt.Sprintf("ocsf: %s has no schema", t))
}
