package fault

import (
	"fmt"
	"runtime/debug"
)

// Panic is a bug that [Contain] kept from ending the program. It is no refusal and
// has no code: who finds one says what it broke.
type Panic struct {
	Value any
	Stack []byte
}

// Error has all that whoever mends it needs, and is for no host to see.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v\n%s", p.Value, p.Stack) }

// Contain runs a step that reads what strangers wrote, and makes a *Panic of a
// panic in it. It is for goroutines, where nobody else would catch it: an agent
// that ends takes its guest and all containers along. What the step deferred has
// been done by then.
func Contain(step func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Panic{p, debug.Stack()}
		}
	}()
	return step()
}
