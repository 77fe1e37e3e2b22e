package proto_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/attestation"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api/proto/reference"
)

// What is on the wire, from the tables of kbs-protocol 11.1 and 12.3: names of
// methods, numbers and kinds of fields.
func TestWire(t *testing.T) {
	for _, c := range []struct {
		file protoreflect.FileDescriptor
		want []string
	}{
		{attestation.File_attestation_attestation_proto, []string{
			"attestation.AttestationService.AttestationEvaluate(1 message*, 2 string*) -> 1 string",
			"attestation.AttestationService.GetAttestationChallenge(1 map<string,string>) -> 1 string",
			"attestation.AttestationService.SetAttestationPolicy(1 string, 2 string) -> ",
		}},
		{reference.File_reference_reference_proto, []string{
			"reference.ReferenceValueProviderService.QueryReferenceValue(1 string) -> 1 string?",
			"reference.ReferenceValueProviderService.RegisterReferenceValue(1 string) -> ",
		}},
	} {
		var got []string
		for i := range c.file.Services().Len() {
			methods := c.file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				got = append(got, fmt.Sprintf("%s(%s) -> %s", m.FullName(), shape(m.Input()), shape(m.Output())))
			}
		}
		slices.Sort(got)
		for i, want := range c.want {
			if i >= len(got) || got[i] != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	one := (&attestation.IndividualAttestationRequest{}).ProtoReflect().Descriptor()
	const want = "1 string, 3 string, 4 string of runtime_data, 5 string of runtime_data, 6 string of init_data, 7 string of init_data, 8 string"
	if got := shape(one); got != want {
		t.Errorf("one request: %s", got)
	}
}

func shape(m protoreflect.MessageDescriptor) string {
	var out []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		text := fmt.Sprintf("%d %s", f.Number(), f.Kind())
		switch {
		case f.IsMap():
			text = fmt.Sprintf("%d map<%s,%s>", f.Number(), f.MapKey().Kind(), f.MapValue().Kind())
		case f.IsList():
			text += "*"
		case f.HasOptionalKeyword():
			text += "?"
		case f.ContainingOneof() != nil:
			text += " of " + string(f.ContainingOneof().Name())
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
