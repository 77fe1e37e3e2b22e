// Package cmdline splits the kernel's command line. What an init and what an agent
// read of it are the same words that the kernel itself sees, so that nothing in
// quotes, which is somebody's value, is a parameter to one of them.
package cmdline

import "strings"

// Words splits the text as the kernel does (next_arg in lib/cmdline.c): at white
// space that is not in double quotes. The quotes are no part of a word.
func Words(text string) (list []string) {
	var word strings.Builder
	quoted, open := false, false
	flush := func() {
		if open {
			list = append(list, word.String())
		}
		word.Reset()
		open = false
	}
	for _, c := range []byte(text) {
		switch {
		case c == '"':
			quoted, open = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'):
			flush()
		default:
			word.WriteByte(c)
			open = true
		}
	}
	flush()
	return list
}
