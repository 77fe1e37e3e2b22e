package strictjson_test

import (
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

func TestObjectTakesExactNames(t *testing.T) {
	o, err := strictjson.Parse([]byte(`{"Type":"x","type":"y","rest":1,"in":{"a":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	var v string
	if ok, err := o.Take("type", &v); !ok || err != nil || v != "y" {
		t.Fatalf("got %v %v %q", ok, err, v)
	}
	if !o.HasFold("TYPE") || o.HasFold("absent") {
		t.Error("HasFold")
	}
	in, err := o.Object("in")
	if err != nil || len(in.Names()) != 1 {
		t.Errorf("%+v, %v", in, err)
	}
	if absent, err := o.Object("absent"); absent != nil || err != nil {
		t.Errorf("%+v, %v", absent, err)
	}
	if err := o.Done(); err == nil {
		t.Error("two members were left and nobody minded")
	}
	var n int
	if ok, err := o.Take("rest", &v); !ok || err == nil {
		t.Error("a number was taken for a string")
	}
	if ok, _ := o.Take("rest", &n); ok {
		t.Error("a member was taken twice")
	}
}
