// Command emptyinit is the init of the machine that booted guests are measured
// against: it says that it runs, and does nothing else.
package main

import "os"

func main() {
	if _, err := os.Stdout.WriteString("emptyinit: the init runs\n"); err != nil {
		os.Exit(1)
	}
	select {}
}
