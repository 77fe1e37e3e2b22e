package fault

import (
	"context"
	"errors"
	"io/fs"
)

// ExitOf returns the exit code of a command that ends with err: what an error on
// the way tells by a method Exit() int, what the code of a [Fault] says, and else
// what the system's error comes to. What nobody knows is a mistake of the caller's.
func ExitOf(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[exiting](err); ok {
		return e.Exit()
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Code.Exit()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ExitNotFound
	case errors.Is(err, fs.ErrExist):
		return ExitConflict
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ExitUnavailable
	}
	return ExitUsage
}

// exiting is an error of a command that knows how the command ends.
type exiting interface {
	error
	Exit() int
}
