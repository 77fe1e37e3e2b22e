package policylang

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A SyntaxError tells a policy's author where it is wrong.
type SyntaxError struct{ Problems []string }

// Error lists all problems, each with its line and column.
func (e *SyntaxError) Error() string { return strings.Join(e.Problems, "; ") }

// Refuse is the *SyntaxError with one problem.
func Refuse(format string, args ...any) error {
	return &SyntaxError{[]string{fmt.Sprintf(format, args...)}}
}

// maxProblems limits what an author is told at once.
const maxProblems = 20

// Syntax turns the compiler's errors into a *SyntaxError with line:column texts.
func Syntax(err error) error {
	var all ast.Errors
	if !errors.As(err, &all) {
		return Refuse("%v", err)
	}
	out := &SyntaxError{}
	for _, e := range all[:min(len(all), maxProblems)] {
		text := e.Code + ": " + e.Message
		if e.Location != nil {
			text = fmt.Sprintf("%d:%d: %s", e.Location.Row, e.Location.Col, text)
		}
		out.Problems = append(out.Problems, text)
	}
	return out
}

// compileDeadline limits a compilation, which cannot be interrupted: one that
// takes longer is left behind.
const compileDeadline = 20 * time.Second

// Compile calls do, which compiles a text. A compilation that panics, or takes too
// long, is a *SyntaxError: it is the text that is to blame, and its author who can
// write another.
func Compile[T any](do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil { // of the library's: whoever may set a policy must not end the process
				r = result{err: Refuse("the compiler panicked: %v", p)}
			}
			done <- r
		}()
		r.value, r.err = do()
	}()
	timer := time.NewTimer(compileDeadline)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		var none T
		return none, Refuse("it takes too long to compile")
	}
}
