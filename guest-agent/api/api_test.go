package api_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

var files = map[string]protoreflect.FileDescriptor{
	"oci":    agent.File_agent_oci_proto,
	"csi":    agent.File_agent_csi_proto,
	"types":  types.File_types_types_proto,
	"agent":  agent.File_agent_agent_proto,
	"health": agent.File_agent_health_proto,
}

// TestFields prints every message that was generated in the notation of the
// specification's table and compares the two as text.
func TestFields(t *testing.T) {
	want := map[string][]string{}
	var file string
	for _, line := range readLines(t, "testdata/fields.txt") {
		if rest, ok := strings.CutPrefix(line, "file "); ok {
			var pkg string
			if _, err := fmt.Sscanf(rest, "%s package %s", &file, &pkg); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if got := string(files[file].Package()); got != pkg {
				t.Errorf("package of %s is %q, want %q", file, got, pkg)
			}
			continue
		}
		want[file] = append(want[file], line)
	}
	for name, f := range files {
		if diff := diffLines(want[name], printFile(f)); diff != "" {
			t.Errorf("%s.proto (-specification +generated):\n%s", name, diff)
		}
	}
}

func TestMethods(t *testing.T) {
	want := readLines(t, "testdata/methods.txt")
	if len(want) != 44 {
		t.Fatalf("%d methods in the table, want 42 of the agent and 2 of health", len(want))
	}
	var got []string
	for _, f := range []protoreflect.FileDescriptor{agent.File_agent_agent_proto, agent.File_agent_health_proto} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				if m.IsStreamingClient() || m.IsStreamingServer() {
					t.Errorf("%s streams; all calls of the protocol are unary", m.FullName())
				}
				got = append(got, fmt.Sprintf("/%s/%s %s %s", s.FullName(), m.Name(), m.Input().FullName(), m.Output().FullName()))
			}
		}
	}
	if diff := diffLines(want, got); diff != "" {
		t.Errorf("methods (-specification +generated):\n%s", diff)
	}
}

func TestNamesAreRegistered(t *testing.T) {
	for _, name := range []protoreflect.FullName{"grpc.AgentService", "grpc.Health", "grpc.Spec", "types.Interface"} {
		if _, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func printFile(f protoreflect.FileDescriptor) []string {
	var enums, messages []string
	for i := range f.Enums().Len() {
		enums = append(enums, printEnum(f, f.Enums().Get(i)))
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		for j := range m.Enums().Len() {
			enums = append(enums, printEnum(f, m.Enums().Get(j)))
		}
		var fields []string
		for j := range m.Fields().Len() {
			fields = append(fields, printField(m.Fields().Get(j)))
		}
		messages = append(messages, fmt.Sprintf("%s { %s }", m.Name(), strings.Join(fields, ", ")))
	}
	return append(enums, messages...)
}

func printEnum(f protoreflect.FileDescriptor, e protoreflect.EnumDescriptor) string {
	var values []string
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		values = append(values, fmt.Sprintf("%d %s", v.Number(), v.Name()))
	}
	name := strings.TrimPrefix(string(e.FullName()), string(f.Package())+".")
	return fmt.Sprintf("enum %s { %s }", name, strings.Join(values, ", "))
}

func printField(d protoreflect.FieldDescriptor) string {
	var suffix, kind string
	optional := ""
	switch {
	case d.IsMap():
		kind = fmt.Sprintf("map<%s,%s>", printKind(d.MapKey()), printKind(d.MapValue()))
	case d.IsList():
		kind, suffix = printKind(d), "[]"
	default:
		kind = printKind(d)
	}
	if d.HasOptionalKeyword() {
		optional = "?"
	}
	return fmt.Sprintf("%d %s%s:%s%s", d.Number(), d.Name(), optional, kind, suffix)
}

// printKind drops "grpc." as the specification's table does; names of the types
// package keep theirs.
func printKind(d protoreflect.FieldDescriptor) string {
	var name string
	switch {
	case d.Message() != nil:
		name = string(d.Message().FullName())
	case d.Enum() != nil:
		name = string(d.Enum().FullName())
	default:
		return d.Kind().String()
	}
	return strings.TrimPrefix(name, "grpc.")
}

// diffLines shows the lines that only one side has, or that they differ in
// order; empty means equal.
func diffLines(want, got []string) string {
	if slices.Equal(want, got) {
		return ""
	}
	var b strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintln(&b, "-", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintln(&b, "+", line)
		}
	}
	if b.Len() == 0 {
		return fmt.Sprintf("the order differs: %q", got)
	}
	return b.String()
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}
