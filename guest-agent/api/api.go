// Package api holds the protocols that the guest agent speaks, as .proto files
// of our own and the Go code generated from them: agent is the Kata agent
// service with its OCI types, types is what its services share.
//
// Names and numbers are the wire's and never change; the tests of this package
// compare the generated code with a table written from the specification.
package api

//go:generate ./generate.sh
