// Package openapi writes an OpenAPI 3.1 document: the types of the few parts
// that the broker needs, and JSON Schema made from Go types as encoding/json
// writes them.
//
// It knows nothing of the broker. What goes in comes from the table of routes
// in the server, so that nothing can be served and not described.
package openapi

// Version is that of the specification.
const Version = "3.1.0"

// Document is the whole description.
type Document struct {
	OpenAPI    string                          `json:"openapi"`
	Info       Info                            `json:"info"`
	Servers    []Server                        `json:"servers,omitempty"`
	Paths      map[string]map[string]Operation `json:"paths"` // path, then method in lower case
	Components Components                      `json:"components"`
}

// Info names the API.
type Info struct {
	Title       string `json:"title"`
	Description string `json:"description,omitempty"`
	Version     string `json:"version"`
}

// Server is an address where operations are served.
type Server struct {
	URL         string `json:"url"`
	Description string `json:"description,omitempty"`
}

// Operation is one method of one path.
type Operation struct {
	ID          string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Tags        []string              `json:"tags,omitempty"`
	Security    []map[string][]string `json:"security"`
	Parameters  []Parameter           `json:"parameters,omitempty"`
	RequestBody *RequestBody          `json:"requestBody,omitempty"`
	Responses   map[string]Response   `json:"responses"` // by status
	Access      string                `json:"x-access"`
	Listeners   []string              `json:"x-listeners"`
}

// Parameter is part of the path or of the query.
type Parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Required    bool    `json:"required"`
	Description string  `json:"description,omitempty"`
	Schema      *Schema `json:"schema"`
	Slashes     bool    `json:"x-slashes,omitempty"` // a path parameter that may hold slashes
}

// RequestBody is what a request carries, by media type.
type RequestBody struct {
	Required bool             `json:"required"`
	Content  map[string]Media `json:"content"`
}

// Response is one answer.
type Response struct {
	Description string            `json:"description"`
	Headers     map[string]Header `json:"headers,omitempty"`
	Content     map[string]Media  `json:"content,omitempty"`
}

// Header of a response.
type Header struct {
	Description string  `json:"description,omitempty"`
	Schema      *Schema `json:"schema"`
}

// Media is a body of one media type. A body without a schema is raw bytes.
type Media struct {
	Schema *Schema `json:"schema,omitempty"`
}

// Components are what the rest refers to.
type Components struct {
	Schemas         map[string]*Schema        `json:"schemas"`
	SecuritySchemes map[string]SecurityScheme `json:"securitySchemes"`
}

// SecurityScheme is a way to show who one is.
type SecurityScheme struct {
	Type         string `json:"type"`
	Scheme       string `json:"scheme,omitempty"`
	BearerFormat string `json:"bearerFormat,omitempty"`
	In           string `json:"in,omitempty"`
	Name         string `json:"name,omitempty"`
	Description  string `json:"description,omitempty"`
}
