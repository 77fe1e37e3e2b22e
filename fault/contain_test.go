package fault

import (
	"errors"
	"strings"
	"testing"
)

func TestContain(t *testing.T) {
	refused := New(PolicyDenied, errors.New("why"))
	if err := Contain(func() error { return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	undone := false
	err := Contain(func() error {
		defer func() { undone = true }()
		var none []int
		return errors.New(strings.Repeat("x", none[len(t.Name())]))
	})
	p, ok := errors.AsType[*Panic](err)
	if !ok || !undone || !strings.HasPrefix(p.Error(), "panic: runtime error: index out of range") || !strings.Contains(p.Error(), "contain_test.go") {
		t.Errorf("undone %t, %v", undone, err)
	}
	if CodeOf(err) != Internal {
		t.Errorf("its code is %s", CodeOf(err))
	}
}
