package provisioner

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
)

// The names of machines are those that every broker of the field gives them.
func TestUUID(t *testing.T) {
	for body, want := range map[string]string{
		`{"vm_name":"a","namespace":"ns"}`: "41206b97-30ae-5560-820e-cd4df1c0e1ef",
		`{"vm_name":"db-1"}`:               "7ce93b08-746d-5aca-a8db-1013e4c8afdf",
	} {
		if m, err := machineOf([]byte(body)); err != nil || m.uuid() != want {
			t.Errorf("%s: %s, %v", body, m.uuid(), err)
		}
	}
}

// A key has the length that was asked for, and each character of the alphabet
// comes up.
func TestKeys(t *testing.T) {
	seen := map[byte]int{}
	for range 40 {
		text := New(nil, MaxLength).document().Reveal()
		key := bytes.TrimSuffix(bytes.TrimPrefix(text, []byte(before)), []byte(after))
		if len(key) != MaxLength || len(text) != len(before)+MaxLength+len(after) {
			t.Fatalf("%d characters", len(key))
		}
		for _, c := range key {
			seen[c]++
		}
	}
	for _, c := range []byte(alphabet) {
		// 330 are expected; 150 would be ten standard deviations less.
		if seen[c] < 150 {
			t.Errorf("%q came up %d times", c, seen[c])
		}
	}
	if len(seen) != len(alphabet) {
		t.Errorf("%d different characters", len(seen))
	}
}

// A request of an administrator names one machine in one way, or is refused.
func FuzzMachine(f *testing.F) {
	f.Add([]byte(`{"vm_name":"a","namespace":"ns"}`))
	f.Add([]byte(`{"vm_name":"a/b","VM_NAME":"c"}`))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := machineOf(raw)
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidRequest {
				t.Fatal(err)
			}
			return
		}
		if strings.Contains(m.VMName+m.Namespace, "/") || !uuidForm.MatchString(m.uuid()) {
			t.Fatalf("%+v is %s", m, m.uuid())
		}
	})
}

// Whatever claims say, a guest is bound to one text of theirs, or refused.
func FuzzBound(f *testing.F) {
	f.Add([]byte(`{"submods":{"cpu0":{"ear.veraison.annotated-evidence":{"init_data_claims":{"trustee.kbs.resource":"kbs+provisioner:///x"}}}}}`))
	f.Add([]byte(`{"submods":{"cpu0":{"ear.veraison.annotated-evidence":{"init_data_claims":{"trustee.kbs.resource":7}}}}}`))
	f.Add([]byte(`{"submods":null}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		named, err := bound(raw)
		if err != nil && (fault.CodeOf(err) != fault.PolicyDenied || named != "") {
			t.Fatalf("%q, %v", named, err)
		}
		if err != nil {
			return
		}
		var claims, submods map[string]json.RawMessage // a map's names are exact
		if json.Unmarshal(raw, &claims) != nil || json.Unmarshal(claims["submods"], &submods) != nil || len(submods["cpu0"]) == 0 {
			t.Fatalf("%q from %q", named, raw)
		}
	})
}
