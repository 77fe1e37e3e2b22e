// Package rpc serves calls over ttrpc, the protocol between container runtimes
// and the guest (kata-agent 1.1): frames of a ten-byte header and a protobuf
// message, many calls at a time on one connection.
//
// The protocol's own library, github.com/containerd/ttrpc, is what clients and
// generated code use; this server stands in for the library's (ADR 45). A
// container's output comes through here in pieces of 32 kB, each a call, and that
// library copies each piece four times and wakes three goroutines for it.
//
// # Who reads, who answers
//
// One goroutine of a connection reads it, its leader. A [Method.Quick] method
// runs on the leader: nobody is woken to answer, and nothing is handed over.
// Every other method, and a quick one that finds that it has to wait
// ([Call.Wait]), first makes another goroutine the leader and goes on by itself.
// So no call ever waits for another one to end.
//
// An answer is built in one piece of memory, from a pool, and leaves in one
// write. A method of [Bytes] reads straight into that piece, and holds none while
// it waits.
//
// # The end
//
// A call is told that it is to end by its context. One that does not listen is
// left behind, and the log names it: a server ends in a bounded time.
//
// # The peer is not trusted
//
// How much one connection can ask for at a time, how large a message is, how long
// one may take to arrive or to be taken, and how many connections there are, is
// bounded (limits.go). Only calls with one request and one answer are served, for
// those services have no others; a stream is refused.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrClosed is what serving ends with after [Server.Close] and [Server.Shutdown].
var ErrClosed = errors.New("the server is closed")

// Service is what is served under one name.
type Service struct {
	Name    string // as on the wire: "grpc.Health"
	Methods []Method
}

// Method is one of a service's methods, made by [Unary] or [Bytes].
type Method struct {
	name    string
	quick   bool
	request func() proto.Message
	// carryOut answers a request: with a message, or with n bytes in the room of
	// the call.
	carryOut func(ctx context.Context, c *Call) (answer proto.Message, n int, err error)
	field    protowire.Number // of the bytes; 0 where the answer is a message

	full  string        // "/grpc.Health/Check"
	under *atomic.Int64 // calls that are under way
}

// Quick marks a method that does not wait, unless it says so by [Call.Wait].
func (m Method) Quick() Method {
	m.quick = true
	return m
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

// Unary is a method that answers a message with a message, as the interfaces that
// protoc-gen-go-ttrpc generates have them.
func Unary[Q any, P message[Q], A proto.Message](name string, f func(context.Context, P) (A, error)) Method {
	return Method{
		name:    name,
		request: func() proto.Message { return P(new(Q)) },
		carryOut: func(ctx context.Context, c *Call) (proto.Message, int, error) {
			req, ok := c.request.(P)
			if !ok {
				return nil, 0, errors.New("the request is of another kind")
			}
			a, err := f(ctx, req)
			return a, 0, err
		},
	}
}

// Bytes is a method whose answer has nothing in it but bytes, in the field of that
// number. f puts them into [Call.Room] and returns how many there are. It is
// [Method.Quick].
func Bytes[Q any, P message[Q]](name string, field protowire.Number, f func(context.Context, P, *Call) (int, error)) Method {
	return Method{
		name: name, field: field, quick: true,
		request: func() proto.Message { return P(new(Q)) },
		carryOut: func(ctx context.Context, c *Call) (proto.Message, int, error) {
			req, ok := c.request.(P)
			if !ok {
				return nil, 0, errors.New("the request is of another kind")
			}
			n, err := f(ctx, req, c)
			return nil, n, err
		},
	}
}

// Interceptor is around every call whose request could be read. It carries the
// call out by [Call.Do], or returns why not: a gRPC status, for what else it
// returns is told as Unknown.
type Interceptor func(ctx context.Context, c *Call) error

// table finds methods by service and name.
type table map[string]map[string]*Method

func newTable(services []Service) table {
	t := table{}
	for _, s := range services {
		methods := make(map[string]*Method, len(s.Methods))
		for _, m := range s.Methods {
			m.full, m.under = "/"+s.Name+"/"+m.name, new(atomic.Int64)
			methods[m.name] = &m
		}
		t[s.Name] = methods
	}
	return t
}

// under tells which methods are being called, and how often.
func (t table) under() []string {
	var names []string
	for _, methods := range t {
		for _, m := range methods {
			if n := m.under.Load(); n > 0 {
				names = append(names, fmt.Sprintf("%s (%d)", m.full, n))
			}
		}
	}
	slices.Sort(names)
	return names
}

// readable makes any bytes a text that a message can carry, of a bounded length.
func readable(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Serves compares what is served with a service as it is declared, for the tests
// of those who list its methods by hand. It returns what is missing or of another
// kind.
func (s *Server) Serves(d protoreflect.ServiceDescriptor) error {
	methods, ok := s.methods[string(d.FullName())]
	if !ok {
		return fmt.Errorf("service %s is not served", d.FullName())
	}
	var wrong []error
	for i := range d.Methods().Len() {
		declared := d.Methods().Get(i)
		m, ok := methods[string(declared.Name())]
		if !ok {
			wrong = append(wrong, fmt.Errorf("method %s is not served", declared.FullName()))
			continue
		}
		if got := m.request().ProtoReflect().Descriptor(); got != declared.Input() {
			wrong = append(wrong, fmt.Errorf("method %s takes %s", declared.FullName(), got.FullName()))
		}
		if f := declared.Output().Fields().ByNumber(m.field); m.field != 0 && (f == nil || f.Kind() != protoreflect.BytesKind || declared.Output().Fields().Len() != 1) {
			wrong = append(wrong, fmt.Errorf("method %s does not answer bytes alone", declared.FullName()))
		}
	}
	if len(methods) != d.Methods().Len() {
		wrong = append(wrong, fmt.Errorf("%d methods of %s are served, %d are declared", len(methods), d.FullName(), d.Methods().Len()))
	}
	return errors.Join(wrong...)
}
