// Command pause is the pause program by itself, for tests: the agent's binary
// contains the same.
package main

import (
	"os"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox/pause"
)

func main() { os.Exit(pause.Run()) }
