package kata

import "google.golang.org/grpc/codes"

// errAbsent answers what this agent was not given, with the code that runtimes
// know for that (kata-agent 1.5).
func errAbsent(what string) error {
	return refusef(codes.Unimplemented, "%s is not implemented by this agent", what)
}
